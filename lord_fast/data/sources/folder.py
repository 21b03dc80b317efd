"""A folder of class folders."""

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
    """A file, and why it is not followed if it is not."""

    path: Path
    refused: str | None


class Folder(Source):
    """SOURCE/CLASS/NAME.ext: the class is the folder, the content label the file's stem.

    Links are followed inside the folder only; others are broken images with a reason.

    Args:
        path: The folder of class folders.
        content_pattern: A regular expression searched in the stem; its named groups become the
            content factors.

    Raises:
        ValueError: no images in class folders, images in folders below them, or the pattern is not
            usable.
    """

    def __init__(self, path: Path, content_pattern: str | None = None):
        self.path, self.stem = path, Stem(content_pattern)
        self.entries = list(_entries(path))
        if not self.entries:
            raise ValueError(
                f"{path}: no images; lay them out as {path.name}/CLASS/NAME.png, one folder a class"
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
        """Format, folder and pattern."""
        return {
            "format": "folder",
            "path": os.path.abspath(self.path),
            "content_pattern": self.stem.describe(),
        }


@register("folder", "a folder SOURCE/CLASS/NAME.png", names_are_paths=True)
def open_folder(path: Path, config: PackConfig) -> Source:
    """The source at a path."""
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
    """Refuse a folder in a class folder if there are images in it.

    Raises:
        ValueError: names one.
    """
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            image = Path(place, name)
            if _is_image(image, extensions):
                raise nested(source, PurePath(printable(image.relative_to(source))))


def followed(path: Path, root: Path) -> Path | Callable[[], bytes]:
    """The `image` of a record for a file: the file, or the refusal of its link."""
    refused = refused_link(path, root)
    return path if refused is None else functools.partial(refuse, refused)


def refused_link(path: Path, root: Path) -> str | None:
    """Why a link is not followed; None if it is, or is none.

    Args:
        path: A file or folder.
        root: What it must lie in, resolved.
    """
    if not path.is_symlink():
        return None
    try:
        target = path.resolve(strict=True)
    except FileNotFoundError:
        return f"a link to {printable(os.readlink(path))}, which is not there"
    except (OSError, RuntimeError):  # which of them depends on the version of Python
        return "a link that leads round in a circle"
    if not target.is_relative_to(root):
        return f"a link out of the folder, to {printable(target)}"
    return None
