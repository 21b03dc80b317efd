"""Reads the idx files of MNIST. The class is the digit, and there are no content labels."""

import functools
import gzip
import io
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lord_fast.data.formats import register
from lord_fast.data.options import PackConfig
from lord_fast.data.records import Record, Source
from lord_fast.data.sources.archive import readable

IMAGES, LABELS = 0x00000803, 0x00000801
"""Magic numbers of arrays of unsigned bytes in 3 and in 1 dimensions. All integers are
big-endian."""


MAX_IDX_BYTES = 1 << 30
"""Largest array that is read. Those of MNIST have 47 MB and those of EMNIST 638 MB."""


class Mnist(Source):
    """The files `{train,t10k}-{images-idx3,labels-idx1}-ubyte` of one or both splits.

    Args:
        path: The folder of the files, which may be gzipped.

    Raises:
        ValueError: Files are missing or damaged.
    """

    channels = 1
    has_files = False

    def __init__(self, path: Path):
        self.path, self.splits = path, {}
        for split in ("train", "t10k"):
            images, labels = (_find(path, split, kind) for kind in ("images", "labels"))
            if images is None and labels is None:
                continue
            if images is None or labels is None:
                raise ValueError(f"{path}: {split}-images without {split}-labels, or the reverse")
            self.splits[split] = read_idx(images, IMAGES), read_idx(labels, LABELS)
            if len(self.splits[split][0]) != len(self.splits[split][1]):
                raise ValueError(f"{labels}: has another number of entries than {images}")
        if not self.splits:
            raise ValueError(f"{path}: no train-images-idx3-ubyte or t10k-images-idx3-ubyte")

    def __len__(self) -> int:
        return sum(len(labels) for _, labels in self.splits.values())

    def __iter__(self) -> Iterator[Record]:
        for split, (images, labels) in self.splits.items():
            for i, label in enumerate(labels.tolist()):
                image = functools.partial(images.__getitem__, i)
                yield Record(f"{split}/{i}", str(label), {}, image)

    def describe(self) -> dict:
        """Return format, folder and splits."""
        return {
            "format": "mnist",
            "path": os.path.abspath(self.path),
            "splits": list(self.splits),
        }


@register("mnist", "MNIST (train-images-idx3-ubyte and so on)", signs=("*-images[-.]idx3-ubyte*",))
def open_mnist(path: Path, config: PackConfig) -> Source:
    """Open the source at a path."""
    return Mnist(path)


def read_idx(path: Path, magic: int) -> np.ndarray:
    """Read an idx file of unsigned bytes.

    Args:
        path: The file, which may be gzipped.
        magic: The magic number that the file must begin with. Its last byte is the number of
            dimensions.

    Raises:
        ValueError: The file has another format or the wrong length, or its array has more than
            `MAX_IDX_BYTES`.
        OSError: The system cannot read the file.
    """
    dimensions = magic & 0xFF
    with readable(path, "cannot be read"), _opened(path) as file:
        data = file.read(4 * (1 + dimensions))
        whole = len(data) == 4 * (1 + dimensions)
        header = np.frombuffer(data, dtype=">u4").tolist() if whole else [0]
        if header[0] != magic:
            raise ValueError(f"does not begin with {magic:#010x}, not such an idx file")
        length = math.prod(header[1:])
        if length > MAX_IDX_BYTES:
            raise ValueError(f"{header[1:]}: more than {MAX_IDX_BYTES:,} bytes")
        values = np.empty(length, dtype=np.uint8)
        filled = 0
        while filled < length and (count := file.readinto(values.data[filled:])):
            filled += count
        filled += len(file.read(1))  # Reading to the end verifies the checksum.
        if filled != length:
            least = "at least " if filled > length else ""
            raise ValueError(f"{least}{filled:,} bytes where {header[1:]} are due; truncated?")
    return values.reshape(header[1:])


def _opened(path: Path) -> io.BufferedIOBase:
    if path.suffix == ".gz":
        return gzip.GzipFile(path)
    return path.open("rb")


def _find(path: Path, split: str, kind: str) -> Path | None:
    """Find an idx file in the folder, or in a folder of the same name in it."""
    name = f"{split}-{kind}[-.]idx?-ubyte*"
    found = (*sorted(path.glob(name)), *sorted(path.glob(f"{name}/{name}")))
    return next((file for file in found if file.is_file()), None)
