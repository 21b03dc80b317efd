"""Reads npz files, such as those of the published preprocessing."""

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
"""Largest array of labels that is read into memory."""
WHAT = "an npz source holds imgs [N, H, W, C] uint8, classes [N] and contents [N] or [N, factors]"


class NpzFile(Source):
    """An npz file with `imgs` uint8 [N, H, W(, C)], `classes` [N] and `contents` [N(, factors)].

    `contents` is optional.

    Args:
        path: The file.

    Raises:
        ValueError: The file has another content.
        OSError: The system cannot read the file.
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
        """Return format and file."""
        return {"format": "npz", "path": os.path.abspath(self.path)}


@register("npz", "an .npz file with imgs, classes and contents")
def open_npz(path: Path, config: PackConfig) -> Source:
    """Open the source at a path."""
    return NpzFile(path)


@dataclass(frozen=True)
class Compressed:
    """An array of a compressed npz file, which is read entry by entry and never loaded completely.

    Attributes:
        path: The file.
        name: Name of the array.
        shape: Shape of the array.
        dtype: Type of the values.
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
        """Return the array in another shape. The first dimension must be -1 and is inferred."""
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
            if member.read(1):  # Reading to the end also verifies the checksum.
                raise ValueError(f"{self.name} is longer than it says")


StoredArray = np.ndarray | Compressed


def entries(array: StoredArray) -> Iterator[tuple[functools.partial, int]]:
    """Yield, for each entry, a function that returns it and the memory in bytes that it holds."""
    if isinstance(array, Compressed):
        for entry in array:
            yield functools.partial(entry.__getitem__, ...), entry.nbytes
    else:
        for i in range(len(array)):
            yield functools.partial(array.__getitem__, i), 0


def names_of(path: Path) -> list[str]:
    """List the names of the arrays of an npz file.

    Raises:
        ValueError: The file is not a zip.
    """
    with _opened(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def stored_array(path: Path, name: str) -> StoredArray:
    """Open an array of an npz file. It is memory-mapped if it is not compressed.

    Raises:
        ValueError: The array is missing or damaged, holds Python objects, has no dimensions, or
            has entries of more than `MAX_BYTES`.
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
                        f"{name} is in Fortran order; save it in C order, or with np.savez"
                    )
                return Compressed(path, name, shape, dtype)
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{name} is neither stored nor deflated")
            while member.read(1 << 20):  # Verifies the checksum, which a memory map would not.
                pass
        if math.prod(shape) * dtype.itemsize + header != info.file_size:
            raise ValueError(f"{name} does not have the length in its header")
        offset = _data_offset(path, info) + header
        order: Literal["F", "C"] = "F" if fortran_order else "C"
        return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Return the offset in the file at which the bytes of a stored member begin."""
    with path.open("rb") as file:
        # Name and extra field may have other lengths in the local header than in the directory.
        file.seek(info.header_offset + 26)
        return info.header_offset + 30 + sum(np.frombuffer(file.read(4), dtype="<u2").tolist())


def read_labels(path: Path, name: str) -> np.ndarray:
    """Read an array of an npz file into memory.

    Raises:
        ValueError: The array is missing or damaged, holds Python objects, or has more than
            `MAX_LABEL_BYTES`.
    """
    with _opened(path) as archive:
        info = archive.getinfo(f"{name}.npy")
        with archive.open(info) as member:
            shape, fortran_order, dtype = _header(member)
            length = math.prod(shape) * dtype.itemsize
            if length > MAX_LABEL_BYTES or length + member.tell() != info.file_size:
                raise ValueError(
                    f"{name} is {dtype} {list(shape)}, and has more than {MAX_LABEL_BYTES:,} bytes "
                    f"or not the length in its header"
                )
            values = np.frombuffer(_exactly(member, length), dtype=dtype)
            member.read(1)  # Reading to the end verifies the checksum.
    return values.reshape(shape, order="F" if fortran_order else "C")


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an npz file. All errors of a damaged file become a ValueError that names the file."""
    with readable(path, "cannot be read"), zipfile.ZipFile(path) as archive:
        yield archive


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the shape, the order and the type of an array. The stream then points at the values.

    Raises:
        ValueError: It is not an array, or it has Python objects, no dimensions or no bytes.
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
