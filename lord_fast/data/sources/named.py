"""Reads image files whose names contain their labels."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from lord_fast.data.records import Record, Source
from lord_fast.data.sources.folder import followed
from lord_fast.data.sources.labels import Labels, printable


class NamedFiles(Source):
    """Image files inside a folder, whose paths contain their labels.

    Args:
        format: The value of --format.
        path: The folder.
        files: The image files.
        labels: The labels that define the class and the content.
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
        """Return all labels of a file."""
        raise NotImplementedError

    def describe(self) -> dict:
        """Return format, folder and class."""
        return {
            "format": self.format,
            "path": os.path.abspath(self.path),
            "class_factors": list(self.labels.classes),
        }


def groups(match: re.Match[str] | None) -> dict[str, str]:
    """Return the named groups of a match that is known to exist."""
    assert match is not None
    return match.groupdict()
