"""Reads a zip or tar archive of class folders without unpacking it."""

import bz2
import errno
import functools
import gzip
import io
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
from lord_fast.data.sources.layout import Others, check_matched, is_junk, nested

TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_HEADER = 1 << 20
"""Longest name or extra header of a tar member that is read, in bytes. Real ones have hundreds."""
HELD_WHOLE = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
"""Types of members that hold such a name or header. tarfile reads them into memory."""
DAMAGE = (None, errno.EINVAL)
"""Numbers of OSErrors that a damaged file causes. Readers raise them without a number, and seeking
before the start of the file gives EINVAL."""
BLOCK = 1 << 18
"""Number of bytes of a tar that are read at a time."""
XZ_MEMORY = 128 << 20
"""Largest memory for decompressing an .xz file. xz -9 needs 65 MiB, and xz allows 4 GiB."""


def is_archive(path: Path) -> bool:
    """Return whether a file is an archive according to its name."""
    return path.name.lower().endswith((".zip", *TAR))


class Archive(Source):
    """The images at .../CLASS/NAME.ext in an archive. Nothing is written to disk.

    Args:
        path: A zip or tar file. A tar may be compressed.
        content_pattern: See `Folder`.
        unlabelled: See `Folder`.

    Raises:
        ValueError: The file is not an archive, it has no images in class folders, the class
            folders have different parents, images need a package that is missing, or the pattern
            is not valid.
    """

    def __init__(self, path: Path, content_pattern: str | None = None, unlabelled: bool = False):
        self.path, self.stem = path, Stem(content_pattern, unlabelled)
        self.extensions = image_extensions()
        self.others = Others(path)
        self.unmatched: list[str] = []
        self.count, top = 0, None
        for member in members(path, self._is_file, read=False):
            if not self._is_image(member.name):
                self.others.add(PurePosixPath(printable(member.name)))
                continue
            self.count += 1
            if member.refused is None:
                image = PurePosixPath(member.name)
                if self.stem.content(printable(image.stem)) is None:
                    self.unmatched.append(printable(member.name))
                top = image.parent.parent if top is None else top
                if image.parent.parent != top:
                    raise nested(path, PurePosixPath(printable(member.name)))
        self.others.check()
        if not self.count:
            raise self.others.nothing()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Record]:
        for member in members(self.path, self._is_image):
            file, shown = PurePosixPath(member.name), printable(member.name)
            class_name, image, labels = printable(file.parent.name), member.content, {}
            if member.refused is None:
                content = self.stem.content(printable(file.stem))
                labels = content or {}
                if content is None:
                    image = functools.partial(refuse, self.stem.refusal())
            yield Record(shown, class_name, labels, image, member.size)

    def notes(self) -> list[str]:
        """See `Source`."""
        return self.others.notes()

    def describe(self) -> dict:
        """Return format, file and pattern."""
        return {
            "format": "archive",
            "path": os.path.abspath(self.path),
            "content_pattern": self.stem.describe(),
        }

    def _is_file(self, name: str) -> bool:
        return not is_junk(PurePosixPath(name))

    def _is_image(self, name: str) -> bool:
        member = PurePosixPath(name)
        in_class = len(member.parts) > 1 and not is_junk(member)
        return in_class and member.suffix.lower() in self.extensions


@register("archive", "a zip or tar file with images at CLASS/NAME.png")
def open_archive(path: Path, config: PackConfig) -> Source:
    """Open the source at a path."""
    source = Archive(path, config.content_pattern, config.content_labels == "none")
    check_matched(path, source.unmatched, config.max_bad, config.content_pattern)
    return source


@dataclass(frozen=True)
class Member:
    """A file of an archive.

    Attributes:
        name: Path in the archive.
        refused: Reason why the file is not read, or None.
        size: Size of the content in bytes, or 0 if the file is not read.
        content: Returns the content, or raises BadImageError if the file is refused or damaged.
            The content of a tar member is in memory, and that of a zip member is read by the call.
    """

    name: str
    refused: str | None
    size: int
    content: Callable[[], bytes]


def members(path: Path, wanted: Callable[[str], bool], read: bool = True) -> Iterator[Member]:
    """Yield the wanted files of an archive in order.

    Only one file of a tar is in memory at a time. A tar is read to its end, which verifies the
    checksum of a compressed one.

    Args:
        path: The archive.
        wanted: Takes a name and returns whether the file is wanted.
        read: Whether the contents are needed. Reading the contents of a tar takes memory.

    Raises:
        ValueError: The file is not an archive, or it is damaged or truncated.
        OSError: The system cannot read the file.
    """
    listing = _zip(path) if path.name.lower().endswith(".zip") else _tar(path, wanted, read)
    with readable(path):
        yield from (member for member in listing if wanted(member.name))


@contextmanager
def readable(path: Path, problem: str = "not a readable archive") -> Iterator[None]:
    """Turn every exception that a damaged file causes in its reader into a ValueError.

    Args:
        path: The file.
        problem: Beginning of the error message, before the reader's own reason.

    Raises:
        ValueError: The file is damaged. The error names the file and the reason.
        OSError: The system cannot read the file, for a reason other than damage.
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
    """Open a zip, whose members `read_member` reads in any order and from several threads.

    The directory of a zip has no checksum. This function therefore compares the name of each
    member with the name in the member's own header, and the number of members with the number at
    the end of the file.

    Raises:
        ValueError: The file is not a zip, or its directory is damaged.
        OSError: The system cannot read the file.
    """
    with readable(path):
        archive = zipfile.ZipFile(path)
        with path.open("rb") as file:
            # A zip with more than 65,534 members gives its number of members as 65,535.
            if _count_of(file) not in (len(archive.infolist()) % 0x10000, 0xFFFF):
                raise zipfile.BadZipFile("its directory lists more or fewer files than it says")
            for info in archive.infolist():
                if _name_of(file, info) != info.orig_filename:
                    raise zipfile.BadZipFile(f"{info.orig_filename} has another name elsewhere")
        return archive


def _count_of(file: BinaryIO) -> int:
    """Return the number of members modulo 2**16 from a zip's last record, or -1 without one."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 22 - 0xFFFF))  # A comment of up to 0xFFFF bytes follows the record.
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    record = tail[at : at + 22]
    return int.from_bytes(record[10:12], "little") if at >= 0 and len(record) == 22 else -1


def _name_of(file: BinaryIO, info: zipfile.ZipInfo) -> str:
    """Read a member's name from the member's own header."""
    file.seek(info.header_offset)
    header = file.read(30)
    if header[:4] != b"PK\3\4" or len(header) < 30:
        raise zipfile.BadZipFile(f"no file where {info.orig_filename} should be")
    name = file.read(int.from_bytes(header[26:28], "little"))
    return name.decode("utf-8" if info.flag_bits & 0x800 else "cp437")


def refused_member(info: zipfile.ZipInfo) -> str | None:
    """Return the reason why a member of a zip is not read, or None if it is."""
    if info.flag_bits & 1:
        return "encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Other methods decompress with unbounded memory.
        return "neither stored nor deflated"
    return _refused(info.filename, info.file_size)


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Read a member that is not refused and verify its length and checksum.

    Raises:
        BadImageError: The member is damaged.
        OSError: The system cannot read the archive.
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
    except Exception as error:  # zipfile raises exceptions of any type for damaged headers.
        raise BadImageError(str(error) or type(error).__name__) from error


def _zip(path: Path) -> Iterator[Member]:
    archive = open_zip(path)  # It stays open, because contents are read later.
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
            archive.members.clear()  # type: ignore[attr-defined]  # saves memory
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
                # bytes(content) returns the same object.
                yield Member(info.name, None, info.size, functools.partial(bytes, content))
        _check_end(archive)


class _Header(tarfile.TarInfo):
    """A header of a tar member.

    It raises an error if the header is truncated or damaged. tarfile itself would treat such a
    header as the end of the archive.
    """

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
    """Read to the end, which verifies the file's checksum, and check that only zeros follow."""
    stream = archive.fileobj
    assert stream is not None
    while block := stream.read(BLOCK):
        if any(block):
            raise tarfile.ReadError("data behind the end marker: damaged, or several archives")


def _decompressed(path: Path) -> BinaryIO:
    """Open a tar file, which is decompressed while it is read."""
    with path.open("rb") as file:
        magic = file.read(6)
    if magic[:2] == b"\x1f\x8b":
        return gzip.open(path)  # type: ignore[return-value]
    if magic[:3] == b"BZh":
        return bz2.open(path)  # type: ignore[return-value]
    if magic == b"\xfd7zXZ\0":
        return io.BufferedReader(_XzFile(path))
    return path.open("rb")


class _XzFile(io.RawIOBase):
    """Decompresses an .xz file with at most `XZ_MEMORY`, which `lzma.open` cannot limit.

    Like `lzma.open` it reads several streams, one after another, with zeros between them.
    """

    def __init__(self, path: Path):
        self._file = path.open("rb")
        self._stream = _xz_stream()

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer) -> int:
        data = b""
        while not data:
            block = self._block()
            if block is None:
                return 0
            try:
                data = self._stream.decompress(block, len(buffer))
            except lzma.LZMAError as error:
                if "limit" not in str(error):
                    raise
                raise lzma.LZMAError(
                    f"needs more than {XZ_MEMORY:,} bytes of memory; compress it again with xz -9"
                ) from error
        buffer[: len(data)] = data
        return len(data)

    def _block(self) -> bytes | None:
        """Return compressed bytes, none if the stream still holds some, or None at the end."""
        if not self._stream.eof:
            block = self._file.read(BLOCK) if self._stream.needs_input else b""
            if self._stream.needs_input and not block:
                raise EOFError("the compressed file ends before the end of its data")
            return block
        block = (self._stream.unused_data or self._file.read(BLOCK)).lstrip(b"\0")
        while not block:
            piece = self._file.read(BLOCK)
            if not piece:
                return None
            block = piece.lstrip(b"\0")
        self._stream = _xz_stream()
        return block


def _xz_stream() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY)


def _not_read(name: str, reason: str) -> Member:
    return Member(name, reason, 0, functools.partial(refuse, reason))


def _refused(name: str, size: int) -> str | None:
    """Return the reason why a member is not read, or None if it is."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.drive or ".." in (*posix.parts, *windows.parts):
        return "its path leads out of the archive"
    return f"{size:,} bytes: more than {MAX_BYTES:,}" if size > MAX_BYTES else None
