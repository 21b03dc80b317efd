"""Image files whose names carry their labels."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from lord_fast.data.records import Record, Source
from lord_fast.data.sources.folder import followed
from lord_fast.data.sources.labels import Labels, printable


class NamedFiles(Source):
    """Files below a folder, their labels read from their paths.

    Args:
        format: What --format calls them.
        path: The folder.
        files: Those that match.
        labels: Which labels are class and which content.
    """

    def __init__(self, format: str, path: Path, files: list[Path], labels: Labels):
        self.format, self.path, self.files, self.labels = format, path, files, labels
        self.root = path.resolve()

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Record]:
        for file in self.files:
            class_name, content = self.labels.split(self.labels_of(file))
            name = printable(file.relative_to(self.path))
            yield Record(name, class_name, content, followed(file, self.root))

    def labels_of(self, file: Path) -> dict[str, str]:
        """Every label of a file."""
        raise NotImplementedError

    def describe(self) -> dict:
        """Format, folder and class."""
        return {
            "format": self.format,
            "path": os.path.abspath(self.path),
            "class_factors": list(self.labels.classes),
        }


def groups(match: re.Match[str] | None) -> dict[str, str]:
    """The named groups of a match that is known to be one."""
    assert match is not None
    return match.groupdict()
