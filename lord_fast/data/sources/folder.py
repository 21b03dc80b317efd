"""Reads a folder of class folders."""

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from lord_fast.data.formats import register
from lord_fast.data.options import PackConfig
from lord_fast.data.records import Record, Source
from lord_fast.data.sources.labels import Stem, image_extensions, printable, refuse
from lord_fast.data.sources.layout import nested


@dataclass(frozen=True)
class Entry:
    """A file, and the reason why its link is not followed, or None."""

    path: Path
    refused: str | None


class Folder(Source):
    """The images at SOURCE/CLASS/NAME.ext. The class is CLASS and the content label is NAME.

    Links are followed only within the folder. An image behind another link counts as broken.

    Args:
        path: The folder of class folders.
        content_pattern: A regular expression that is searched in NAME. Its named groups become the
            content factors.

    Raises:
        ValueError: There are no images in class folders, there are images in folders inside a
            class folder, or the pattern is not valid.
    """

    def __init__(self, path: Path, content_pattern: str | None = None):
        self.path, self.stem = path, Stem(content_pattern)
        self.entries = list(_entries(path))
        if not self.entries:
            raise ValueError(
                f"{path}: no images; lay them out as {path.name}/CLASS/NAME.png, with one folder "
                f"per class"
            )

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Record]:
        for entry in self.entries:
            file = entry.path
            name = printable(file.relative_to(self.path))
            if entry.refused is not None:
                image = functools.partial(refuse, entry.refused)
                yield Record(name, printable(file.parent.name), {}, image)
            else:
                content = self.stem.content(printable(file.stem), name)
                yield Record(name, printable(file.parent.name), content, file)

    def describe(self) -> dict:
        """Return format, folder and pattern."""
        return {
            "format": "folder",
            "path": os.path.abspath(self.path),
            "content_pattern": self.stem.describe(),
        }


@register("folder", "a folder with images at SOURCE/CLASS/NAME.png", names_are_paths=True)
def open_folder(path: Path, config: PackConfig) -> Source:
    """Open the source at a path."""
    return Folder(path, config.content_pattern)


def _entries(path: Path) -> Iterator[Entry]:
    root, extensions = path.resolve(), image_extensions()
    for folder in sorted(path.iterdir()):
        refused = refused_link(folder, root)
        if refused is not None:
            yield Entry(folder, refused)
        elif folder.is_dir():
            with os.scandir(folder) as found:
                files = sorted(found, key=lambda entry: entry.name)
            for entry in files:
                file = folder / entry.name
                if _is_image(file, extensions) and not entry.is_dir(follow_symlinks=False):
                    yield Entry(file, refused_link(file, root))
                elif entry.is_dir(follow_symlinks=False):
                    _refuse_images_below(file, path, extensions)


def _is_image(file: Path, extensions: set[str]) -> bool:
    return file.suffix.lower() in extensions and not file.name.startswith(".")


def _refuse_images_below(folder: Path, source: Path, extensions: set[str]) -> None:
    """Check that a folder inside a class folder holds no images.

    Raises:
        ValueError: It holds images. The error names one.
    """
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            image = Path(place, name)
            if _is_image(image, extensions):
                raise nested(source, PurePath(printable(image.relative_to(source))))


def followed(path: Path, root: Path) -> Path | Callable[[], bytes]:
    """Return `Record.image` for a file. It raises BadImageError if the file's link is refused."""
    refused = refused_link(path, root)
    return path if refused is None else functools.partial(refuse, refused)


def refused_link(path: Path, root: Path) -> str | None:
    """Return the reason why a link is not followed, or None if it is followed or is no link.

    Args:
        path: A file or folder.
        root: The resolved folder that the link must not leave.
    """
    if not path.is_symlink():
        return None
    try:
        target = path.resolve(strict=True)
    except FileNotFoundError:
        return f"a link to {printable(os.readlink(path))}, which does not exist"
    except (OSError, RuntimeError):  # The type depends on the version of Python.
        return "a link that leads back to itself"
    if not target.is_relative_to(root):
        return f"a link out of the folder, to {printable(target)}"
    return None
