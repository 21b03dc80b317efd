"""An unfinished store is called OUT.partial, and only one process at a time may fill it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lord_fast.atomic import finish_folder, own_partial, partial_of, refuse_existing, remove_partial
from lord_fast.data.rows import CHECKSUMS
from lord_fast.lock import LOCK, folder_lock

PACKING = "packing.json"
"""A file that describes what is packed into an unfinished store. Earlier versions wrote this file
but no marker."""


@contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """Create or reuse the unfinished folder of the store `out` and lock it for this process.

    It may hold files of an earlier process. It remains when the block ends, unless `finish`
    renamed it or `discard` removed it.

    Args:
        out: The store to create. It must not exist. Its parent is created if needed.

    Yields:
        OUT.partial.

    Raises:
        ValueError: `out` exists, another process creates it, or OUT.partial was not created by
            lord-fast.
    """
    refuse_existing(out)
    partial = partial_of(out)
    own_partial(partial, _is_packing(partial))
    with folder_lock(partial):
        try:
            refuse_existing(out)  # Another process may have finished it before the lock.
        except ValueError:
            discard(partial)
            raise
        yield partial


def finish(partial: Path, out: Path) -> None:
    """Rename a complete store to `out`."""
    finish_folder(partial, out)
    for file in (out / PACKING, out / LOCK, *out.glob(f"*{CHECKSUMS}")):
        file.unlink(missing_ok=True)


def discard(partial: Path) -> None:
    """Remove an unfinished store."""
    remove_partial(partial)


def _is_packing(partial: Path) -> bool:
    """Return whether an unfinished store has the packing.json of any version of lord-fast."""
    try:
        content = json.loads((partial / PACKING).read_text())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"started", "source", "decoder", "size"} <= set(content)
