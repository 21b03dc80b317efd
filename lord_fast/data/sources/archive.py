"""A zip or tar archive of class folders, read without unpacking it."""

import functools
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from lord_fast.data.decode import MAX_BYTES
from lord_fast.data.formats import register
from lord_fast.data.options import PackConfig
from lord_fast.data.records import Record, Source
from lord_fast.data.sources.labels import Stem, image_extensions, printable, refuse

TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def is_archive(path: Path) -> bool:
    """Whether the name of a file is that of an archive."""
    return path.name.lower().endswith((".zip", *TAR))


class Archive(Source):
    """Images at .../CLASS/NAME.ext in an archive; nothing is written to disk.

    Args:
        path: A .zip or a .tar, compressed or not.
        content_pattern: See `Folder`.

    Raises:
        ValueError: not an archive, no images in class folders, or the pattern is not usable.
    """

    def __init__(self, path: Path, content_pattern: str | None = None):
        self.path, self.stem = path, Stem(content_pattern)
        self.extensions = image_extensions()
        self.count = sum(1 for name, _ in members(path) if self._is_image(name))
        if not self.count:
            raise ValueError(f"{path}: no images; they must lie at CLASS/NAME.png in the archive")

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Record]:
        for name, content in members(self.path):
            if not self._is_image(name):
                continue
            member, shown = PurePosixPath(name), printable(name)
            if isinstance(content, str):
                image = functools.partial(refuse, content)
                yield Record(shown, printable(member.parent.name), {}, image)
            else:
                labels = self.stem.content(printable(member.stem), shown)
                image = functools.partial(bytes, content)
                yield Record(shown, printable(member.parent.name), labels, image)

    def describe(self) -> dict:
        """Format, file and pattern."""
        return {
            "format": "archive",
            "path": os.path.abspath(self.path),
            "content_pattern": self.stem.describe(),
        }

    def _is_image(self, name: str) -> bool:
        member = PurePosixPath(name)
        hidden = member.name.startswith(".") or "__MACOSX" in member.parts
        return not hidden and member.suffix.lower() in self.extensions and len(member.parts) > 1


@register("archive", "a zip or tar file of CLASS/NAME.png")
def open_archive(path: Path, config: PackConfig) -> Source:
    """The source at a path."""
    return Archive(path, config.content_pattern)


def members(path: Path) -> Iterator[tuple[str, bytes | str]]:
    """Name and content of every file of an archive, in its order; a reason (str) if refused.

    The content is read as it comes: a compressed tar cannot be read in another order.

    Raises:
        ValueError: not an archive, or a damaged one.
    """
    try:
        yield from _zip(path) if path.name.lower().endswith(".zip") else _tar(path)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{path}: not a readable archive ({error})") from error


def _zip(path: Path) -> Iterator[tuple[str, bytes | str]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            refused = _refused(info.filename, info.file_size)
            if info.flag_bits & 1:
                refused = "encrypted"
            if refused is None:
                try:
                    yield info.filename, archive.read(info)
                    continue
                except zipfile.BadZipFile as error:
                    refused = str(error)
            yield info.filename, refused


def _tar(path: Path) -> Iterator[tuple[str, bytes | str]]:
    with tarfile.open(path, "r|*") as archive:
        for info in archive:
            if info.isdir():
                continue
            refused = _refused(info.name, info.size)
            if not info.isfile():
                refused = "a link or a device, not a file"
            file = archive.extractfile(info) if refused is None else None
            yield info.name, file.read() if file is not None else refused or "not a file"


def _refused(name: str, size: int) -> str | None:
    """Why a member is not read."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.drive or ".." in (*posix.parts, *windows.parts):
        return "its path leads out of the archive"
    return f"{size:,} bytes: more than {MAX_BYTES:,}" if size > MAX_BYTES else None
