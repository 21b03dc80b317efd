"""3D Shapes: 480,000 images of one object in a room (Burgess & Kim, 2018)."""

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lord_fast.data.formats import register
from lord_fast.data.options import PackConfig
from lord_fast.data.records import Record, Source
from lord_fast.data.sources.blocks import Blocks
from lord_fast.data.sources.labels import Labels

FACTORS = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
"""Columns of `labels`."""
SHAPES = ("cube", "cylinder", "sphere", "capsule")


class Shapes3d(Source):
    """`3dshapes.h5`: `images` uint8 [N, 64, 64, 3] and `labels` float64 [N, 6].

    Args:
        path: The file.
        class_factors: Labels that make the class; empty: the shape.

    Raises:
        ValueError: not such a file, or h5py is missing.
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
        try:
            self.file = h5py.File(path, "r")
            images, labels = self.file["images"], self.file["labels"]
            shapes = images.shape, labels.shape
        except (OSError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{path}: not an HDF5 file with images and labels ({error})"
            ) from error
        if shapes[1] != (shapes[0][0], len(FACTORS)) or len(shapes[0]) != 4:
            raise ValueError(
                f"{path}: images {shapes[0]} and labels {shapes[1]} do not go together"
            )
        self.values = labels[:]
        self.blocks = Blocks(len(self.values), lambda start, stop: images[start:stop])

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Record]:
        for i, values in enumerate(self.values):
            class_name, content = self.labels.split(_names(values))
            yield Record(str(i), class_name, content, functools.partial(self.blocks, i))

    def describe(self) -> dict:
        """Format, file and class."""
        return {
            "format": "shapes3d",
            "path": os.path.abspath(self.path),
            "class_factors": list(self.labels.classes),
        }


@register("shapes3d", "3D Shapes: 3dshapes.h5")
def open_shapes3d(path: Path, config: PackConfig) -> Source:
    """The source at a path."""
    return Shapes3d(path, config.class_factors)


def _names(values: np.ndarray) -> dict[str, str]:
    """One row of `labels`; the shapes by their names, numbers without binary dust."""
    labels = {name: f"{value:.6g}" for name, value in zip(FACTORS, values, strict=True)}
    shape = int(labels["shape"])
    return {**labels, "shape": SHAPES[shape] if shape < len(SHAPES) else str(shape)}
