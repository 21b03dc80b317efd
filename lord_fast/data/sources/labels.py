"""How names and labels become a class and content factors."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lord_fast.data.decode.contract import BadImageError
from lord_fast.data.decode.pillow import FORMATS


@dataclass(frozen=True)
class Labels:
    """Which labels of a data set make the class and which are content.

    Attributes:
        classes: Names of the labels that make the class.
        contents: Names of those that vary inside a class.
    """

    classes: tuple[str, ...]
    contents: tuple[str, ...]

    @classmethod
    def chosen(
        cls,
        asked: Sequence[str],
        published: Sequence[str],
        others: Sequence[str],
        contents: Sequence[str],
    ) -> "Labels":
        """The published choice, or what --class-factors asks for.

        Args:
            asked: The flag's values; empty: as published.
            published: The labels that make the published class.
            others: The other labels there are.
            contents: Those of all labels that are content when they are not class.

        Raises:
            ValueError: there is no such label.
        """
        for name in asked:
            if name not in (*published, *others):
                known = " ".join((*published, *others))
                raise ValueError(f"--class-factors {name}: no such label; there are {known}")
        classes = tuple(asked or published)
        return cls(classes, tuple(name for name in contents if name not in classes))

    def split(self, labels: dict[str, str]) -> tuple[str, dict[str, str]]:
        """One image's labels as its class's name and its content."""
        class_name = "_".join(labels[name] for name in self.classes)
        return class_name, {name: labels[name] for name in self.contents}


class Stem:
    """The stem of a file's name as its content: one label, or the named groups of a pattern.

    Args:
        content_pattern: A regular expression searched in the stem; None: the stem is the label.

    Raises:
        ValueError: the pattern is not usable.
    """

    def __init__(self, content_pattern: str | None):
        self.pattern = None if content_pattern is None else _compile(content_pattern)

    def content(self, stem: str, name: str) -> dict[str, str]:
        """The content labels of the file called `name`.

        Raises:
            ValueError: the pattern does not match.
        """
        if self.pattern is None:
            return {"content": stem}
        match = self.pattern.search(stem)
        if match is None:
            raise ValueError(
                f"--content-pattern {self.pattern.pattern}: does not match the name of {name}"
            )
        return {name: label or "" for name, label in match.groupdict().items()}

    def describe(self) -> str | None:
        """The pattern as it was given."""
        return self.pattern and self.pattern.pattern


def _compile(content_pattern: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(content_pattern)
    except re.error as error:
        raise ValueError(f"--content-pattern {content_pattern}: {error}") from error
    if not pattern.groupindex:
        raise ValueError(
            f"--content-pattern {content_pattern}: name each content factor as a group, such as "
            f"(?P<angle>\\d+)"
        )
    return pattern


def image_extensions() -> set[str]:
    """The endings of what `lord_fast.data.decode` reads, such as .png."""
    endings = Image.registered_extensions()
    return {ending for ending, form in endings.items() if form in FORMATS}


def printable(path: str | os.PathLike) -> str:
    """A path with slashes, and with escapes for what is not UTF-8 in it."""
    return os.fsencode(Path(path).as_posix()).decode("utf-8", "backslashreplace")


def refuse(reason: str) -> bytes:
    """The `image` of a record that is known to be unusable.

    Raises:
        BadImageError: always.
    """
    raise BadImageError(reason)
