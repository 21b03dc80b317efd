"""Where images come from: folders, npz files and the embedded glyphs, as records to pack."""

import functools
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from lord_fast.config import PackConfig
from lord_fast.data.glyphs import Glyphs
from lord_fast.data.records import Record, Source


def open_source(source: str, config: PackConfig) -> Source:
    """The source that `lord-fast pack SOURCE` names.

    Raises:
        ValueError: it does not exist, is of another format or holds no images.
    """
    if config.format == "glyphs" or (config.format == "auto" and source == "glyphs"):
        return Glyphs(
            config.size, config.classes, config.typefaces, config.rotations, config.scales
        )
    path = Path(source)
    if not path.exists():
        raise ValueError(f"{path}: no such folder or file")
    if config.format == "npz" or (config.format == "auto" and path.suffix == ".npz"):
        return NpzFile(path)
    if not path.is_dir():
        raise ValueError(f"{path}: neither a folder nor an .npz file; say which with --format")
    return Folder(path, config.content_pattern)


class Folder:
    """SOURCE/CLASS/NAME.ext: the class is the folder, the content label the file's stem.

    Args:
        path: The folder of class folders.
        content_pattern: A regular expression searched in the stem; its named groups become the
            content factors.

    Raises:
        ValueError: no images in class folders, or the pattern is not usable.
    """

    def __init__(self, path: Path, content_pattern: str | None = None):
        self.path = path
        self.pattern = None if content_pattern is None else _compile(content_pattern)
        extensions = set(Image.registered_extensions())
        self.files = [
            file
            for folder in sorted(entry for entry in path.iterdir() if entry.is_dir())
            for file in sorted(folder.iterdir())
            if file.suffix.lower() in extensions and not file.name.startswith(".")
        ]
        if not self.files:
            raise ValueError(
                f"{path}: no images; lay them out as {path.name}/CLASS/NAME.png, one folder a class"
            )

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Record]:
        for file in self.files:
            yield Record(
                name=file.relative_to(self.path).as_posix(),
                class_name=file.parent.name,
                content=self._content(file),
                image=file,
            )

    def describe(self) -> dict:
        """Format, folder and pattern."""
        return {
            "format": "folder",
            "path": os.path.abspath(self.path),
            "content_pattern": self.pattern and self.pattern.pattern,
        }

    def _content(self, file: Path) -> dict[str, str]:
        if self.pattern is None:
            return {"content": file.stem}
        match = self.pattern.search(file.stem)
        if match is None:
            raise ValueError(
                f"--content-pattern {self.pattern.pattern}: does not match the name of "
                f"{file.relative_to(self.path)}"
            )
        return {name: label or "" for name, label in match.groupdict().items()}


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


class NpzFile:
    """An npz file: `imgs` uint8 [N, H, W(, C)], `classes` [N], `contents` [N(, factors)] if known.

    Args:
        path: The file.

    Raises:
        ValueError: not such a file.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            with np.load(path, allow_pickle=False) as arrays:
                self.imgs, self.classes = arrays["imgs"], arrays["classes"]
                nothing = np.empty((len(self.imgs), 0), dtype="U1")
                contents = arrays.get("contents", nothing)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path}: cannot be read ({error}); an npz source holds imgs [N, H, W, C] uint8, "
                f"classes [N] and contents [N] or [N, factors]"
            ) from error
        self.contents = contents[:, None] if contents.ndim == 1 else contents
        if not len(self.imgs) == len(self.classes) == len(self.contents) > 0:
            raise ValueError(f"{path}: imgs, classes and contents differ in length or are empty")

    def __len__(self) -> int:
        return len(self.imgs)

    def __iter__(self) -> Iterator[Record]:
        factors = self.contents.shape[1]
        names = ["content"] if factors == 1 else [f"content{i}" for i in range(factors)]
        for i in range(len(self)):
            yield Record(
                name=str(i),
                class_name=str(self.classes[i]),
                content=dict(zip(names, map(str, self.contents[i]), strict=True)),
                image=functools.partial(self.imgs.__getitem__, i),
            )

    def describe(self) -> dict:
        """Format and file."""
        return {"format": "npz", "path": os.path.abspath(self.path)}
