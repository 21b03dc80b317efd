"""Seals JSON objects with a checksum of their content, so that a changed digit is noticed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHECKSUM = "checksum"


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with the SHA-256 of its content as the last key."""
    plain = json.loads(json.dumps(content))  # Other key types would be sorted differently.
    return {**content, CHECKSUM: _checksum(plain)}


def unseal(content: dict[str, Any], where: Path | str) -> dict[str, Any]:
    """Verify and remove the checksum of `seal`. An object without one is not verified.

    Args:
        content: The object as read from a file.
        where: The file, for the error.

    Returns:
        The content without the checksum.

    Raises:
        ValueError: The content has changed.
    """
    rest = {name: value for name, value in content.items() if name != CHECKSUM}
    if CHECKSUM in content and content[CHECKSUM] != _checksum(rest):
        raise ValueError(f"{where}: damaged (its checksum has changed)")
    return rest


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
