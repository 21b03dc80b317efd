"""npz files, those of the published preprocess among them."""

import functools
import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np

from lord_fast.data.decode import MAX_BYTES
from lord_fast.data.formats import register
from lord_fast.data.options import PackConfig
from lord_fast.data.records import Record, Source
from lord_fast.data.sources.archive import readable

MAX_LABEL_BYTES = 1 << 30
"""Longest array of labels that is read; the images are not held in memory."""
WHAT = "an npz source holds imgs [N, H, W, C] uint8, classes [N] and contents [N] or [N, factors]"


class NpzFile(Source):
    """An npz file: `imgs` uint8 [N, H, W(, C)], `classes` [N], `contents` [N(, factors)] if known.

    Args:
        path: The file.

    Raises:
        ValueError: not such a file.
        OSError: the system refuses to read it.
    """

    has_files = False

    def __init__(self, path: Path):
        self.path = path
        try:
            self.imgs = stored_array(path, "imgs")
            self.classes = read_labels(path, "classes")
            contents = np.empty((len(self.imgs), 0), dtype="U1")
            if "contents" in names_of(path):
                contents = read_labels(path, "contents")
        except ValueError as error:
            raise ValueError(f"{error}; {WHAT}") from error
        self.contents = contents[:, None] if contents.ndim == 1 else contents
        if self.classes.ndim != 1 or self.contents.ndim != 2 or self.imgs.ndim not in (3, 4):
            dims = self.imgs.ndim, self.classes.ndim, contents.ndim
            raise ValueError(f"{path}: arrays of {dims} dimensions; {WHAT}")
        if not len(self.imgs) == len(self.classes) == len(self.contents) > 0:
            raise ValueError(f"{path}: imgs, classes and contents differ in length or are empty")
        if self.imgs.ndim == 3 or self.imgs.shape[-1] in (1, 3):
            self.channels = 1 if self.imgs.ndim == 3 else self.imgs.shape[-1]

    def __len__(self) -> int:
        return len(self.imgs)

    def __iter__(self) -> Iterator[Record]:
        factors = self.contents.shape[1]
        names = ["content"] if factors == 1 else [f"content{i}" for i in range(factors)]
        for i, (image, size) in enumerate(entries(self.imgs)):
            yield Record(
                name=str(i),
                class_name=str(self.classes[i]),
                content=dict(zip(names, map(str, self.contents[i]), strict=True)),
                image=image,
                size=size,
            )

    def describe(self) -> dict:
        """Format and file."""
        return {"format": "npz", "path": os.path.abspath(self.path)}


@register("npz", "an .npz file of imgs, classes and contents")
def open_npz(path: Path, config: PackConfig) -> Source:
    """The source at a path."""
    return NpzFile(path)


@dataclass(frozen=True)
class Compressed:
    """An array of a compressed npz file, which is read entry by entry and never held whole.

    Attributes:
        path: The file.
        name: Of the array.
        shape: Its dimensions.
        dtype: Of its values.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def reshape(self, *shape: int) -> "Compressed":
        """The same values under other dimensions; -1 as the first is what remains."""
        rest = math.prod(shape[1:])
        first = math.prod(self.shape) // rest if rest else 0
        return Compressed(self.path, self.name, (first, *shape[1:]), self.dtype)

    def __iter__(self) -> Iterator[np.ndarray]:
        length = math.prod(self.shape[1:]) * self.dtype.itemsize
        with _opened(self.path) as archive, archive.open(f"{self.name}.npy") as member:
            _header(member)
            for _ in range(len(self)):
                values = np.frombuffer(_exactly(member, length), dtype=self.dtype)
                yield values.reshape(self.shape[1:])
            if member.read(1):  # compares the checksum, too
                raise ValueError(f"{self.name} is longer than it says")


StoredArray = np.ndarray | Compressed


def entries(array: StoredArray) -> Iterator[tuple[functools.partial, int]]:
    """For each entry of an array: what returns it, and the bytes that it holds until then."""
    if isinstance(array, Compressed):
        for entry in array:
            yield functools.partial(entry.__getitem__, ...), entry.nbytes
    else:
        for i in range(len(array)):
            yield functools.partial(array.__getitem__, i), 0


def names_of(path: Path) -> list[str]:
    """The arrays of an npz file.

    Raises:
        ValueError: not a zip.
    """
    with _opened(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def stored_array(path: Path, name: str) -> StoredArray:
    """An array of an npz file: memory-mapped where it is not compressed, else `Compressed`.

    Raises:
        ValueError: there is no such array, or it is damaged, holds Python objects, has no
            dimensions, or has entries of more than `MAX_BYTES`.
    """
    with _opened(path) as archive:
        info = archive.getinfo(f"{name}.npy")
        with archive.open(info) as member:
            shape, fortran_order, dtype = _header(member)
            header = member.tell()
            if math.prod(shape[1:]) * dtype.itemsize > MAX_BYTES:
                raise ValueError(
                    f"{name} is {list(shape)}: entries of more than {MAX_BYTES:,} bytes"
                )
            if info.compress_type == zipfile.ZIP_DEFLATED:
                if fortran_order and len(shape) > 1:
                    raise ValueError(
                        f"{name} is in Fortran's order; save it in C's, or by np.savez"
                    )
                return Compressed(path, name, shape, dtype)
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{name} is neither stored nor deflated")
            while member.read(1 << 20):  # compares the checksum, which a memory map does not
                pass
        if math.prod(shape) * dtype.itemsize + header != info.file_size:
            raise ValueError(f"{name} is not as long as it says")
        offset = _data_offset(path, info) + header
        order: Literal["F", "C"] = "F" if fortran_order else "C"
        return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored member begin in the file."""
    with path.open("rb") as file:
        # The local header's name and extra field may differ in length from the directory's.
        file.seek(info.header_offset + 26)
        return info.header_offset + 30 + sum(np.frombuffer(file.read(4), dtype="<u2").tolist())


def read_labels(path: Path, name: str) -> np.ndarray:
    """An array of an npz file in memory.

    Raises:
        ValueError: there is no such array, or it is damaged, holds Python objects, or more than
            `MAX_LABEL_BYTES`.
    """
    with _opened(path) as archive:
        info = archive.getinfo(f"{name}.npy")
        with archive.open(info) as member:
            shape, fortran_order, dtype = _header(member)
            length = math.prod(shape) * dtype.itemsize
            if length > MAX_LABEL_BYTES or length + member.tell() != info.file_size:
                raise ValueError(
                    f"{name} is {dtype} {list(shape)}, more than {MAX_LABEL_BYTES:,} bytes or not "
                    f"as long as it says"
                )
            values = np.frombuffer(_exactly(member, length), dtype=dtype)
            member.read(1)  # compares the checksum
    return values.reshape(shape, order="F" if fortran_order else "C")


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """An npz file; whatever is wrong with it becomes a ValueError that names it."""
    with readable(path, "cannot be read"), zipfile.ZipFile(path) as archive:
        yield archive


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type of an array, its stream left at the values.

    Raises:
        ValueError: no array, one of Python objects, or one without dimensions or bytes.
    """
    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array of version {version}")
    read = np.lib.format.read_array_header_1_0
    if version == (2, 0):
        read = np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read(member)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if not shape or not all(0 <= size < 1 << 40 for size in shape) or not dtype.itemsize:
        raise ValueError(f"an array of {dtype} {list(shape)}")
    return shape, fortran_order, dtype


def _exactly(member: IO[bytes], length: int) -> bytes:
    data = member.read(length)
    if len(data) != length:
        raise ValueError("it ends before its values do")
    return data
