"""The JSON lines of an unfinished store. A file beside them holds a checksum of each line."""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

CHECKSUMS = ".crc32"
"""Suffix of the file with the checksums, one line of 8 hexadecimal digits per row."""


class Rows:
    """A JSON lines file that is open for appending.

    The files are truncated instead of rewritten, so that a full disk cannot lose the rows.

    Args:
        file: The file.
        rows: What the file shall begin with. These are its first rows.
    """

    def __init__(self, file: Path, rows: list[dict]):
        self._lines = file.open("a", encoding="utf-8")
        self._lines.truncate(sum(len(json_line(row)) for row in rows))
        self._checksums = checksums_of(file).open("a", encoding="utf-8")
        self._checksums.truncate(len(rows) * len(_checksum("")))

    def add(self, row: dict) -> None:
        """Append a row."""
        line = json_line(row)
        self._lines.write(line)
        self._checksums.write(_checksum(line))

    def flush(self) -> None:
        """Flush both files."""
        self._checksums.flush()
        self._lines.flush()

    def close(self) -> None:
        """Close both files, the lines also if the checksums cannot be written."""
        with self._lines:
            self._checksums.close()


def json_line(row: dict) -> str:
    """Return a row as it stands in its file."""
    return json.dumps(row) + "\n"


def read_rows(file: Path) -> Iterator[dict]:
    """Yield the rows before the first whose line or checksum is missing or damaged."""
    with (
        file.open(encoding="utf-8", errors="replace") as lines,
        checksums_of(file).open(encoding="utf-8", errors="replace") as checksums,
    ):
        for line, checksum in zip(lines, checksums, strict=False):
            if checksum != _checksum(line):
                return
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                return
            if json_line(row) != line:
                return
            yield row


def checksums_of(file: Path) -> Path:
    """Return the file with the checksums of a JSON lines file."""
    return file.with_name(file.name + CHECKSUMS)


def _checksum(line: str) -> str:
    return f"{zlib.crc32(line.encode()):08x}\n"
