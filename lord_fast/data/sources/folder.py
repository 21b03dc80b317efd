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
from lord_fast.data.sources.layout import Others, check_matched, is_junk, nested


@dataclass(frozen=True)
class Entry:
    """A file, and the reason why its link is not followed, or None."""

    path: Path
    refused: str | None


class Folder(Source):
    """The images at SOURCE/CLASS/NAME.ext. The class is CLASS and the content label is NAME.

    If SOURCE holds nothing but one folder of class folders, this folder is read instead.

    Links are followed only within the folder. An image behind another link counts as broken, and
    so does one whose name does not match the pattern.

    Args:
        path: The folder of class folders.
        content_pattern: A regular expression that is searched in NAME. Its named groups become the
            content factors.
        unlabelled: Whether images have no content label.

    Raises:
        ValueError: There are no images in class folders, there are images in folders inside a
            class folder, images need a package that is missing, or the pattern is not valid.
    """

    def __init__(self, path: Path, content_pattern: str | None = None, unlabelled: bool = False):
        self.path, self.stem = path, Stem(content_pattern, unlabelled)
        self.others = Others(path)
        self.top = _class_root(path)
        self.entries = list(_entries(self.top, self.others))
        self.others.check()
        if not self.entries:
            raise self.others.nothing()

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Record]:
        for entry in self.entries:
            file = entry.path
            name, class_name = printable(file.relative_to(self.path)), printable(file.parent.name)
            content = self.stem.content(printable(file.stem))
            refused = entry.refused
            if refused is None and content is None:
                refused = self.stem.refusal()
            if refused is not None:
                yield Record(name, class_name, {}, functools.partial(refuse, refused))
            else:
                yield Record(name, class_name, content or {}, file)

    def notes(self) -> list[str]:
        """See `Source`."""
        inside = [f"the class folders are in {self.top}"] if self.top != self.path else []
        return inside + self.others.notes()

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
    source = Folder(path, config.content_pattern, config.content_labels == "none")
    matched = ((e, source.stem.content(printable(e.path.stem))) for e in source.entries)
    unmatched = [printable(e.path.relative_to(path)) for e, content in matched if content is None]
    check_matched(path, unmatched, config.max_bad, config.content_pattern)
    return source


def _class_root(path: Path) -> Path:
    """Return the folder of class folders, which may be the only folder inside SOURCE."""
    seen = [entry for entry in sorted(path.iterdir()) if not is_junk(PurePath(entry.name))]
    if len(seen) != 1 or not seen[0].is_dir() or seen[0].is_symlink():
        return path
    inside = [entry for entry in seen[0].iterdir() if not is_junk(PurePath(entry.name))]
    has_images = any(_is_image(entry, image_extensions()) for entry in inside)
    has_folders = any(entry.is_dir() for entry in inside)
    return _class_root(seen[0]) if has_folders and not has_images else path


def _entries(path: Path, others: Others) -> Iterator[Entry]:
    root, extensions = others.source.resolve(), image_extensions()
    for folder in sorted(path.iterdir()):
        refused = refused_link(folder, root)
        if refused is not None:
            yield Entry(folder, refused)
        elif folder.is_dir() and not is_junk(PurePath(folder.name)):
            yield from _of_class(folder, root, others, extensions)
        elif not folder.is_dir():
            others.add(PurePath(printable(folder.relative_to(others.source))))


def _of_class(folder: Path, root: Path, others: Others, extensions: set[str]) -> Iterator[Entry]:
    with os.scandir(folder) as found:
        files = sorted(found, key=lambda entry: entry.name)
    for entry in files:
        file = folder / entry.name
        if entry.is_dir(follow_symlinks=False):
            _refuse_images_below(file, others.source, extensions)
        elif _is_image(file, extensions):
            yield Entry(file, refused_link(file, root))
        else:
            others.add(PurePath(printable(file.relative_to(others.source))))


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
            inside = PurePath(printable(image.relative_to(source)))
            if _is_image(image, extensions) and not is_junk(inside):
                raise nested(source, inside)


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
