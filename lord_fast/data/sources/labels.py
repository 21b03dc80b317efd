"""Turns file names and labels into a class and content factors."""

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
    """The roles of the labels of a data set.

    Attributes:
        classes: Names of the labels that define the class.
        contents: Names of the labels that vary within a class.
    """

    classes: tuple[str, ...]
    contents: tuple[str, ...]

    @classmethod
    def chosen(
        cls,
        asked: Sequence[str],
        default: Sequence[str],
        others: Sequence[str],
        contents: Sequence[str],
    ) -> "Labels":
        """Choose the labels that --class-factors names, or the default of the data set.

        Args:
            asked: Values of --class-factors, or empty for the default.
            default: The labels that define the class by default.
            others: All other labels.
            contents: The labels that are content unless they are part of the class.

        Raises:
            ValueError: --class-factors names an unknown label.
        """
        for name in asked:
            if name not in (*default, *others):
                known = " ".join((*default, *others))
                raise ValueError(f"--class-factors {name}: no such label; there are {known}")
        classes = tuple(asked or default)
        return cls(classes, tuple(name for name in contents if name not in classes))

    def split(self, labels: dict[str, str]) -> tuple[str, dict[str, str]]:
        """Return the name of the class and the content labels of an image."""
        class_name = "_".join(labels[name] for name in self.classes)
        return class_name, {name: labels[name] for name in self.contents}


class Stem:
    """Turns the stem of a file name into content labels.

    Args:
        content_pattern: A regular expression that is searched in the stem. Its named groups become
            the labels. None uses the whole stem as the only label.
        unlabelled: Whether files have no content labels. It cannot go with a pattern.

    Raises:
        ValueError: The pattern is not valid.
    """

    def __init__(self, content_pattern: str | None, unlabelled: bool = False):
        self.pattern = None if content_pattern is None else _compile(content_pattern)
        self.unlabelled = unlabelled

    def content(self, stem: str) -> dict[str, str] | None:
        """Return the content labels of a file by the stem of its name.

        The result is None if the pattern does not match.
        """
        if self.unlabelled:
            return {}
        if self.pattern is None:
            return {"content": stem}
        match = self.pattern.search(stem)
        if match is None:
            return None
        return {name: label or "" for name, label in match.groupdict().items()}

    def refusal(self) -> str:
        """Return the reason why a file is left out whose name does not match the pattern."""
        assert self.pattern is not None
        return f"its name does not match --content-pattern {self.pattern.pattern}"

    def describe(self) -> str | None:
        """Return the pattern, or None."""
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
    """Return the extensions of files that `lord_fast.data.decode` reads, such as .png."""
    endings = Image.registered_extensions()
    return {ending for ending, form in endings.items() if form in FORMATS}


def printable(path: str | os.PathLike) -> str:
    """Return a path with forward slashes and with escapes for bytes that are not UTF-8."""
    return os.fsencode(Path(path).as_posix()).decode("utf-8", "backslashreplace")


def refuse(reason: str) -> bytes:
    """Raise an error with a reason. It serves as `Record.image` of unusable images.

    Raises:
        BadImageError: Always.
    """
    raise BadImageError(reason)
