"""3D Shapes has 480,000 images of an object in a room (Burgess & Kim, 2018)."""

import functools
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lord_fast.data.decode import MAX_BYTES
from lord_fast.data.formats import register
from lord_fast.data.options import PackConfig
from lord_fast.data.records import Record, Source
from lord_fast.data.sources.archive import readable
from lord_fast.data.sources.blocks import Blocks
from lord_fast.data.sources.labels import Labels

FACTORS = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
"""The columns of `labels`."""
MAX_LABEL_BYTES = 256 << 20
"""Largest array of labels that is read. That of the data set has 23 MB."""
SHAPES = ("cube", "cylinder", "sphere", "capsule")


class Shapes3d(Source):
    """The file `3dshapes.h5` with `images` uint8 [N, 64, 64, 3] and `labels` float64 [N, 6].

    Args:
        path: The file.
        class_factors: Labels that define the class. Defaults to the shape.

    Raises:
        ValueError: The file has another content, or h5py is missing.
    """

    channels = 3
    has_files = False

    def __init__(self, path: Path, class_factors: Sequence[str] = ()):
        others = tuple(name for name in FACTORS if name != "shape")
        self.path = path
        self.labels = Labels.chosen(class_factors, ("shape",), others, FACTORS)
        try:
            import h5py
        except ImportError as error:
            raise ValueError(
                "--format shapes3d: h5py is missing; pip install 'lord-fast[datasets]'"
            ) from error
        with readable(path, "not an HDF5 file with images and labels"):
            self.file = h5py.File(path, "r")
            images, labels = (_array(self.file, h5py, name) for name in ("images", "labels"))
            shapes = images.shape, labels.shape
            if len(shapes[0]) != 4 or shapes[1] != (shapes[0][0], len(FACTORS)):
                raise ValueError(f"images {shapes[0]} and labels {shapes[1]} do not match")
            size = math.prod(shapes[0][1:]) * images.dtype.itemsize
            if size > MAX_BYTES or labels.nbytes > MAX_LABEL_BYTES:
                raise ValueError(f"images {shapes[0]} and labels {shapes[1]} are too large")
            self.values = labels[:].astype(np.float64)
        self.blocks = Blocks(len(self.values), functools.partial(_read, path, images), size)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Record]:
        for i, values in enumerate(self.values):
            class_name, content = self.labels.split(_names(values))
            yield Record(str(i), class_name, content, functools.partial(self.blocks, i))

    def describe(self) -> dict:
        """Return format, file and class."""
        return {
            "format": "shapes3d",
            "path": os.path.abspath(self.path),
            "class_factors": list(self.labels.classes),
        }


def _array(file, h5py, name: str):
    """Return an array that is stored in the file itself.

    Raises:
        ValueError: The array is missing, lies in other files, or is stored in too large pieces.
    """
    link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"{name} is missing, or a link, which is not followed")
    array = file[name]
    if not isinstance(array, h5py.Dataset) or array.dtype.kind not in "uif":
        raise ValueError(f"{name} is not an array of numbers")
    if array.external or array.is_virtual:
        raise ValueError(f"{name} lies in other files, which are not read")
    if array.chunks and math.prod(array.chunks) * array.dtype.itemsize > MAX_BYTES:
        raise ValueError(f"{name} is stored in pieces of more than {MAX_BYTES:,} bytes")
    return array


def _read(path: Path, images, start: int, stop: int) -> np.ndarray:
    """Read images. Damage becomes a ValueError that names the file."""
    with readable(path, "cannot be read"):
        return images[start:stop]


@register("shapes3d", "3D Shapes (3dshapes.h5)", signs=("3dshapes.h5",))
def open_shapes3d(path: Path, config: PackConfig) -> Source:
    """Open the source at a path."""
    return Shapes3d(path, config.class_factors)


def _names(values: np.ndarray) -> dict[str, str]:
    """Convert a row of `labels` to strings. Shapes get names, and numbers are rounded."""
    labels = {name: f"{value:.6g}" for name, value in zip(FACTORS, values, strict=True)}
    names = dict(zip("0123", SHAPES, strict=True))
    return {**labels, "shape": names.get(labels["shape"], labels["shape"])}
