"""A zip or tar archive of class folders, read without unpacking it."""

import bz2
import errno
import functools
import gzip
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from lord_fast.data.decode import MAX_BYTES, BadImageError
from lord_fast.data.formats import register
from lord_fast.data.options import PackConfig
from lord_fast.data.records import Record, Source
from lord_fast.data.sources.labels import Stem, image_extensions, printable, refuse
from lord_fast.data.sources.layout import nested

TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_HEADER = 1 << 20
"""Longest name or extra header of a tar's member in bytes; a real one has a few hundred."""
HELD_WHOLE = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
"""Types of members that are such a name or header, which tarfile reads into memory."""
DAMAGE = (None, errno.EINVAL)
"""Numbers of an OSError that is about the file: a reader's own, and a place before its start."""
BLOCK = 1 << 18
"""Bytes of a tar that are read at a time."""


def is_archive(path: Path) -> bool:
    """Whether the name of a file is that of an archive."""
    return path.name.lower().endswith((".zip", *TAR))


class Archive(Source):
    """Images at .../CLASS/NAME.ext in an archive; nothing is written to disk.

    Args:
        path: A .zip or a .tar, compressed or not.
        content_pattern: See `Folder`.

    Raises:
        ValueError: not an archive, no images in class folders, class folders that do not lie side
            by side, or the pattern is not usable.
    """

    def __init__(self, path: Path, content_pattern: str | None = None):
        self.path, self.stem = path, Stem(content_pattern)
        self.extensions = image_extensions()
        self.count, top = 0, None
        for member in members(path, self._is_image, read=False):
            self.count += 1
            if member.refused is None:
                image = PurePosixPath(member.name)
                top = image.parent.parent if top is None else top
                if image.parent.parent != top:
                    raise nested(path, PurePosixPath(printable(member.name)))
        if not self.count:
            raise ValueError(f"{path}: no images; they must lie at CLASS/NAME.png in the archive")

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Record]:
        for member in members(self.path, self._is_image):
            file, shown = PurePosixPath(member.name), printable(member.name)
            class_name = printable(file.parent.name)
            labels = {}
            if member.refused is None:
                labels = self.stem.content(printable(file.stem), shown)
            yield Record(shown, class_name, labels, member.content, member.size)

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


@dataclass(frozen=True)
class Member:
    """A file of an archive.

    Attributes:
        name: Its path in the archive.
        refused: Why it is not read; None if it is.
        size: Bytes of its content; 0 if it is not read.
        content: Returns it. A zip's is read then, a tar's is in memory. Raises BadImageError
            where it is refused or damaged.
    """

    name: str
    refused: str | None
    size: int
    content: Callable[[], bytes]


def members(path: Path, wanted: Callable[[str], bool], read: bool = True) -> Iterator[Member]:
    """The files of an archive that are wanted, in its order; one of a tar is held at a time.

    A tar is read to its end, and its checksum compared if it is compressed.

    Args:
        path: The archive.
        wanted: Takes a name. What is not wanted is not held in memory.
        read: Whether the contents are needed; a tar's take memory.

    Raises:
        ValueError: not an archive, or one that is damaged or cut short.
        OSError: the system refuses to read it.
    """
    listing = _zip(path) if path.name.lower().endswith(".zip") else _tar(path, wanted, read)
    with readable(path):
        yield from (member for member in listing if wanted(member.name))


@contextmanager
def readable(path: Path, problem: str = "not a readable archive") -> Iterator[None]:
    """Turn whatever a damaged file makes of its reader into one error.

    Args:
        path: The file.
        problem: What the error says before the reader's own reason.

    Raises:
        ValueError: names the file and the reason.
        OSError: the system's own, which says nothing about the content.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DAMAGE:
            raise
        raise ValueError(f"{path}: {problem} ({error.strerror or error})") from error
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path}: {problem} ({reason})") from error


def open_zip(path: Path) -> zipfile.ZipFile:
    """A zip to read members from with `read_member`, in any order and from several threads.

    Its directory has no checksum, so the names of all members are compared with those beside their
    contents, and their number with that at the end of the file.

    Raises:
        ValueError: not a zip, or one whose directory is damaged.
        OSError: the system refuses to read it.
    """
    with readable(path):
        archive = zipfile.ZipFile(path)
        with path.open("rb") as file:
            # The record of a zip of more than 65,534 members says 65,535.
            if _count_of(file) not in (len(archive.infolist()) % 0x10000, 0xFFFF):
                raise zipfile.BadZipFile("its directory lists more or fewer files than it says")
            for info in archive.infolist():
                if _name_of(file, info) != info.orig_filename:
                    raise zipfile.BadZipFile(f"{info.orig_filename} has another name elsewhere")
        return archive


def _count_of(file: BinaryIO) -> int:
    """Number of members, modulo 2**16, by a zip's last record; -1 if there is none."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 22 - 0xFFFF))  # the longest comment follows it
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    record = tail[at : at + 22]
    return int.from_bytes(record[10:12], "little") if at >= 0 and len(record) == 22 else -1


def _name_of(file: BinaryIO, info: zipfile.ZipInfo) -> str:
    """A member's name as its own header has it."""
    file.seek(info.header_offset)
    header = file.read(30)
    if header[:4] != b"PK\3\4" or len(header) < 30:
        raise zipfile.BadZipFile(f"no file where {info.orig_filename} should be")
    name = file.read(int.from_bytes(header[26:28], "little"))
    return name.decode("utf-8" if info.flag_bits & 0x800 else "cp437")


def refused_member(info: zipfile.ZipInfo) -> str | None:
    """Why a member of a zip is not read; None if it is."""
    if info.flag_bits & 1:
        return "encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Others decompress without a bound on the memory.
        return "neither stored nor deflated"
    return _refused(info.filename, info.file_size)


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The content of a member that is not refused, at most as long as it says.

    Raises:
        BadImageError: it is damaged; its checksum is compared.
        OSError: the system refuses to read the archive.
    """
    try:
        if not info.file_size:
            raise BadImageError("empty file")
        with archive.open(info) as stream:
            content = stream.read(info.file_size)
            if len(content) != info.file_size or stream.read(1):
                raise BadImageError(f"not the {info.file_size:,} bytes that the archive says")
            return content
    except OSError as error:
        if error.errno not in DAMAGE:
            raise
        raise BadImageError(error.strerror or str(error)) from error
    except BadImageError:
        raise
    except Exception as error:  # whatever a damaged header makes of Python's reader
        raise BadImageError(str(error) or type(error).__name__) from error


def _zip(path: Path) -> Iterator[Member]:
    archive = open_zip(path)  # stays open as long as a content may be read
    for info in archive.infolist():
        if info.is_dir():
            continue
        refused = refused_member(info)
        if refused is None:
            content = functools.partial(read_member, archive, info)
            yield Member(info.filename, None, info.file_size, content)
        else:
            yield _not_read(info.filename, refused)


def _tar(path: Path, wanted: Callable[[str], bool], read: bool) -> Iterator[Member]:
    with (
        _decompressed(path) as stream,
        tarfile.open(fileobj=stream, mode="r|", bufsize=BLOCK, tarinfo=_Header) as archive,
    ):
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it remembers all of them
            if info.isdir() or not wanted(info.name):
                continue
            refused = _refused(info.name, info.size)
            if not info.isfile():
                refused = "a link or a device, not a file"
            if refused is not None:
                yield _not_read(info.name, refused)
            else:
                file = archive.extractfile(info) if read else None
                content = file.read() if file is not None else b""
                # bytes() of bytes are the same ones.
                yield Member(info.name, None, info.size, functools.partial(bytes, content))
        _check_end(archive)


class _Header(tarfile.TarInfo):
    """A tar's header; tarfile takes one that is cut off or damaged for the end of the archive."""

    @classmethod
    def frombuf(cls, *arguments, **options):
        header = super().frombuf(*arguments, **options)
        if header.type in HELD_WHOLE and header.size > MAX_HEADER:
            raise tarfile.ReadError(f"a header of {header.size:,} bytes")
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError(f"{header.name} is a sparse file, which is not read")
        return header

    @classmethod
    def fromtarfile(cls, archive):
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(
                f"{error} at byte {archive.offset:,}: no tar, cut short, or damaged"
            ) from error


def _check_end(archive: tarfile.TarFile) -> None:
    """Read what follows the end marker, zeros alone, so that a checksum behind it is compared."""
    stream = archive.fileobj
    assert stream is not None
    while block := stream.read(BLOCK):
        if any(block):
            raise tarfile.ReadError("data behind the end marker: damaged, or several archives")


def _decompressed(path: Path) -> BinaryIO:
    """The file, decompressed as it is read if it is compressed."""
    with path.open("rb") as file:
        magic = file.read(6)
    if magic[:2] == b"\x1f\x8b":
        return gzip.open(path)  # type: ignore[return-value]
    if magic[:3] == b"BZh":
        return bz2.open(path)  # type: ignore[return-value]
    if magic == b"\xfd7zXZ\0":
        return lzma.open(path)  # type: ignore[return-value]
    return path.open("rb")


def _not_read(name: str, reason: str) -> Member:
    return Member(name, reason, 0, functools.partial(refuse, reason))


def _refused(name: str, size: int) -> str | None:
    """Why a member is not read."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.drive or ".." in (*posix.parts, *windows.parts):
        return "its path leads out of the archive"
    return f"{size:,} bytes: more than {MAX_BYTES:,}" if size > MAX_BYTES else None
