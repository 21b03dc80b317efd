"""SmallNORB shows 50 toys of 5 categories (LeCun, Huang & Bottou, CVPR 2004).

There are 18 azimuths, 9 elevations, 6 lightings and 2 cameras. The .mat files are not MATLAB files.
They have the "binary matrix" format of the data set's home page, which is little-endian. A file
holds a magic number, the number of dimensions, at least three dimensions (all int32) and the
values.
"""

import functools
import gzip
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lord_fast.data.decode import MAX_BYTES
from lord_fast.data.formats import register
from lord_fast.data.options import PackConfig
from lord_fast.data.records import Record, Source
from lord_fast.data.sources.archive import readable
from lord_fast.data.sources.blocks import Blocks
from lord_fast.data.sources.labels import Labels
from lord_fast.data.sources.named import NamedFiles, groups

CATEGORIES = ("animal", "human", "airplane", "truck", "car")
CAMERAS = ("lt", "rt")
INFO = ("instance", "elevation", "azimuth", "lighting")
"""The columns of the -info file."""
LIMITS = (9, 8, 34, 5)
"""Largest value of each column. Azimuths are even."""
CLASS = ("category", "instance", "elevation", "lighting", "camera")
BYTE, INT = 0x1E3D4C55, 0x1E3D4C54
TYPES: dict[int, np.dtype] = {BYTE: np.dtype("u1"), INT: np.dtype("<i4")}
MAX_ENTRIES = 1_000_000
"""Largest number of image pairs in a split. The data set has 24,300."""
JPG = re.compile(
    r"azimuth(?P<azimuth>\d+)_elevation(?P<elevation>\d+)_lighting(?P<lighting>\d+)"
    r"_(?P<camera>lt|rt)\.jpe?g$"
)


class Matrix:
    """A binary matrix file, whose values are read on demand.

    Args:
        path: The file, which may be gzipped.

    Raises:
        ValueError: The file has another format, another type or the wrong length.
    """

    def __init__(self, path: Path):
        self.path = path
        with readable(path, "not a binary matrix"), self._open() as file:
            magic, dimensions = _ints(file, 2) or (0, 0)
            known = magic in TYPES and 1 <= dimensions <= 8
            header = _ints(file, max(3, dimensions)) if known else []
            if not header:
                raise ValueError(f"not one of bytes or ints: magic {magic:#x}")
            self.offset = file.tell()
            # Seeking to the end of a gzipped file verifies its checksum.
            found = file.seek(0, os.SEEK_END)
        self.dtype, self.shape = TYPES[magic], tuple(header[:dimensions])
        length = self.offset + math.prod(self.shape) * self.dtype.itemsize
        if min(header) < 0 or found != length:
            raise ValueError(f"{path}: not {length:,} bytes of {list(self.shape)}; truncated?")

    @property
    def entry_bytes(self) -> int:
        """Size in bytes of an entry along the first dimension."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def read(self, start: int, stop: int) -> np.ndarray:
        """Read the entries from `start` to `stop` along the first dimension."""
        with readable(self.path, "cannot be read"), self._open() as file:
            file.seek(self.offset + start * self.entry_bytes)
            data = file.read((stop - start) * self.entry_bytes)
            values = np.frombuffer(data, dtype=self.dtype)
            return values.reshape(stop - start, *self.shape[1:])

    def all(self) -> np.ndarray:
        """Read all values."""
        return self.read(0, self.shape[0])

    def _open(self) -> BinaryIO:
        if self.path.suffix == ".gz":
            return gzip.GzipFile(self.path)  # type: ignore[return-value]
        return self.path.open("rb")


class SmallNorb(Source):
    """The original files of one or both splits.

    In the published experiments only the azimuth is content.

    Args:
        path: The folder of `smallnorb-*-{dat,cat,info}.mat`, which may be gzipped.
        class_factors: Labels that define the class. Defaults to all except the azimuth.

    Raises:
        ValueError: Files are missing or damaged, or labels are out of bounds.
    """

    channels = 1
    has_files = False

    def __init__(self, path: Path, class_factors: Sequence[str] = ()):
        self.path, self.labels = path, choose(class_factors)
        self.splits = [
            _Split(split, *(_find(path, split, kind) for kind in ("dat", "cat", "info")))
            for split in ("training", "testing")
            if any(path.glob(f"*{split}-dat.mat*"))
        ]
        if not self.splits:
            raise ValueError(f"{path}: no smallnorb-...-training-dat.mat or -testing-dat.mat")

    def __len__(self) -> int:
        return sum(2 * len(split.labels) for split in self.splits)

    def __iter__(self) -> Iterator[Record]:
        for split in self.splits:
            for i, labels in enumerate(split.labels):
                for camera, camera_name in enumerate(CAMERAS):
                    class_name, content = self.labels.split({**labels, "camera": camera_name})
                    name = f"{split.name}/{i}_{camera_name}"
                    yield Record(name, class_name, content, functools.partial(split, i, camera))

    def describe(self) -> dict:
        """Return format, folder, splits and class."""
        return {
            "format": "smallnorb",
            "path": os.path.abspath(self.path),
            "splits": [split.name for split in self.splits],
            "class_factors": list(self.labels.classes),
        }


class _Split:
    def __init__(self, name: str, dat: Path, cat: Path, info: Path):
        self.name = name
        images, categories_of, rows_of = Matrix(dat), Matrix(cat), Matrix(info)
        if images.shape[1:2] != (2,) or len(images.shape) != 4 or images.dtype != np.dtype("u1"):
            raise ValueError(f"{dat}: {list(images.shape)}: must be bytes [N, 2, height, width]")
        count = images.shape[0]
        if categories_of.shape != (count,) or rows_of.shape != (count, 4):
            raise ValueError(f"{info}: {list(rows_of.shape)}: does not match {count} images")
        if not 0 < count <= MAX_ENTRIES or images.entry_bytes > MAX_BYTES:
            raise ValueError(f"{dat}: {list(images.shape)}: at most {MAX_ENTRIES:,} images of at "
                             f"most {MAX_BYTES:,} bytes are read")  # fmt: skip
        categories, rows = categories_of.all(), rows_of.all()
        if categories.min() < 0 or categories.max() >= len(CATEGORIES):
            raise ValueError(f"{cat}: labels out of their limits, 0 to {len(CATEGORIES) - 1}")
        odd = (rows < 0) | (rows > np.array(LIMITS)) | (rows % np.array((1, 1, 2, 1)) != 0)
        if odd.any():
            raise ValueError(f"{info}: labels out of their limits {dict(zip(INFO, LIMITS))}")  # noqa: B905
        self.labels = [
            {"category": CATEGORIES[c], **dict(zip(INFO, map(str, row), strict=True))}
            for c, row in zip(categories.tolist(), rows.tolist(), strict=True)
        ]
        self.blocks = Blocks(count, images.read, images.entry_bytes)

    def __call__(self, i: int, camera: int) -> np.ndarray:
        return self.blocks(i)[camera]


class SmallNorbJpg(NamedFiles):
    """JPEG files at CATEGORY/INSTANCE/azimuth*_elevation*_lighting*_{lt,rt}.jpg.

    Args:
        path: A folder that holds them at any depth.
        class_factors: See `SmallNorb`.

    Raises:
        ValueError: There are no such files.
    """

    channels = 1

    def __init__(self, path: Path, class_factors: Sequence[str] = ()):
        files = [file for file in sorted(path.rglob("*.jp*g")) if JPG.search(file.name)]
        if not files:
            raise ValueError(
                f"{path}: neither smallnorb-*.mat files nor images such as "
                f"CATEGORY/INSTANCE/azimuth0_elevation0_lighting0_lt.jpg"
            )
        super().__init__("smallnorb", path, files, choose(class_factors))

    def labels_of(self, file: Path) -> dict[str, str]:
        """See `NamedFiles`."""
        category, instance = file.parts[-3:-1]
        return {"category": category, "instance": instance, **groups(JPG.search(file.name))}


@register(
    "smallnorb", "SmallNORB (the .mat files, or their images as JPEG)", names_are_paths=True,
    signs=("smallnorb-*-dat.mat*",),
)  # fmt: skip
def open_smallnorb(path: Path, config: PackConfig) -> Source:
    """Open the source in a folder, in either form."""
    original = any(path.glob("*-dat.mat*"))
    return (SmallNorb if original else SmallNorbJpg)(path, config.class_factors)


def choose(class_factors: Sequence[str]) -> Labels:
    """Choose the labels that define the class."""
    return Labels.chosen(class_factors, CLASS, ("azimuth",), ("azimuth", *CLASS))


def _ints(file: BinaryIO, count: int) -> list[int]:
    """Read little-endian int32 values. The result is empty if the file ends early."""
    data = file.read(4 * count)
    return np.frombuffer(data, dtype="<i4").tolist() if len(data) == 4 * count else []


def _find(path: Path, split: str, kind: str) -> Path:
    found = sorted(path.glob(f"*{split}-{kind}.mat*"))
    if not found:
        raise ValueError(f"{path}: no smallnorb-...-{split}-{kind}.mat")
    return found[0]
