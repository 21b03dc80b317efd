"""Cars3D shows 183 car models from 24 azimuths and 4 elevations (Reed et al., NeurIPS 2015)."""

import functools
import io
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from lord_fast.data.decode import BadImageError, read_file
from lord_fast.data.formats import register
from lord_fast.data.options import PackConfig
from lord_fast.data.records import Record, Source
from lord_fast.data.sources.archive import is_archive, members
from lord_fast.data.sources.labels import Labels
from lord_fast.data.sources.npz import entries, names_of, stored_array

AZIMUTHS, ELEVATIONS = 24, 4
MESH = "_mesh.mat"
MAX_MESH_BYTES = 256 << 20
"""Largest array of a mesh file that is read. The original arrays have 4.7 MB."""


class Cars3dMeshes(Source):
    """The MATLAB files, one per car, with `im` uint8 [height, width, 3, 24 azimuths, 4 elevations].

    Args:
        path: `nips2015-analogy-data.tar.gz`, or a folder that it was unpacked to.
        class_factors: Labels that define the class. Defaults to the car.

    Raises:
        ValueError: There are no such files.
    """

    channels = 3
    has_files = False

    def __init__(self, path: Path, class_factors: Sequence[str] = ()):
        self.path, self.labels = path, choose(class_factors)
        self.count = sum(1 for _ in self._files(read=False))
        if not self.count:
            raise ValueError(f"{path}: no files such as car_001{MESH} in it")

    def __len__(self) -> int:
        return self.count * AZIMUTHS * ELEVATIONS

    def __iter__(self) -> Iterator[Record]:
        for name, data in self._files():
            mesh = read_mesh(f"{self.path}: {name}", data)
            car = PurePosixPath(name).name.removesuffix(MESH)
            for azimuth, elevation in itertools.product(range(AZIMUTHS), range(ELEVATIONS)):
                labels = {"car": car, "elevation": str(elevation), "azimuth": str(azimuth)}
                class_name, content = self.labels.split(labels)
                image = functools.partial(mesh.__getitem__, (azimuth, elevation))
                size = mesh.nbytes // (AZIMUTHS * ELEVATIONS)
                yield Record(f"{car}/{azimuth}_{elevation}", class_name, content, image, size)

    def describe(self) -> dict:
        """Return format, path and class."""
        return _describe(self.path, self.labels)

    def _files(self, read: bool = True) -> Iterator[tuple[str, bytes]]:
        """Yield the name and content of every mesh file. Contents are empty if `read` is False."""
        if is_archive(self.path):
            for member in members(self.path, lambda name: name.endswith(MESH), read):
                yield member.name, self._content(member.name, member.content) if read else b""
        else:
            for file in sorted(self.path.rglob(f"*{MESH}")):
                read_mesh_file = functools.partial(read_file, file)
                yield file.name, self._content(file.name, read_mesh_file) if read else b""

    def _content(self, name: str, content: Callable[[], bytes]) -> bytes:
        try:
            return content()
        except BadImageError as error:
            raise ValueError(f"{self.path}: {name}: {error}") from error


def read_mesh(name: str, data: bytes) -> np.ndarray:
    """Read the images of a car, uint8 [24 azimuths, 4 elevations, height, width, 3].

    Raises:
        ValueError: The file has another content, or its array has more than `MAX_MESH_BYTES`.
    """
    # SciPy comes with scikit-learn. It is imported here because the import is slow.
    from scipy.io import loadmat, whosmat

    try:
        # The declared shapes are read first, because a compressed array may hold gigabytes.
        shapes = {array: shape for array, shape, _ in whosmat(io.BytesIO(data))}
        if math.prod(shapes["im"]) > MAX_MESH_BYTES:
            raise ValueError(f"im is {list(shapes['im'])}: more than {MAX_MESH_BYTES:,} bytes")
        im = loadmat(io.BytesIO(data), variable_names=["im"])["im"]
    except Exception as error:  # SciPy raises exceptions of any type for damaged files.
        raise ValueError(f"{name}: not a MATLAB file with an array im ({error})") from error
    if im.dtype != np.uint8 or im.ndim != 5 or im.shape[2:] != (3, AZIMUTHS, ELEVATIONS):
        raise ValueError(f"{name}: im is {im.dtype} {list(im.shape)}: must be uint8 [H, W, 3, "
                         f"{AZIMUTHS}, {ELEVATIONS}]")  # fmt: skip
    return im.transpose(3, 4, 0, 1, 2)


class Cars3dNpz(Source):
    """An npz file with all images, `imgs` or `images` [4 elevations x 24 azimuths x cars, ...].

    Args:
        path: The file. Elevation, azimuth and car may be one dimension or three.
        class_factors: See `Cars3dMeshes`.

    Raises:
        ValueError: The file has another content.
    """

    channels = 3
    has_files = False

    def __init__(self, path: Path, class_factors: Sequence[str] = ()):
        self.path, self.labels = path, choose(class_factors)
        names = names_of(path)
        name = next((n for n in ("imgs", "images") if n in names), None)
        if name is None:
            raise ValueError(f"{path}: no array imgs or images")
        images = stored_array(path, name)
        known = images.ndim >= 4 and images.dtype == np.uint8 and images.shape[-1] == 3
        if known:
            images = images.reshape(-1, *images.shape[-3:])
        self.cars, rest = divmod(len(images), ELEVATIONS * AZIMUTHS)
        if rest or not self.cars or not known:
            raise ValueError(
                f"{path}: {name} is {images.dtype} {list(images.shape)}: must be uint8 "
                f"[{ELEVATIONS} elevations x {AZIMUTHS} azimuths x cars, H, W, 3]"
            )
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Record]:
        grid = itertools.product(range(ELEVATIONS), range(AZIMUTHS), range(self.cars))
        for i, ((elevation, azimuth, car), (image, size)) in enumerate(
            zip(grid, entries(self.images), strict=True)
        ):
            labels = {"car": str(car), "elevation": str(elevation), "azimuth": str(azimuth)}
            class_name, content = self.labels.split(labels)
            yield Record(str(i), class_name, content, image, size)

    def describe(self) -> dict:
        """Return format, path and class."""
        return _describe(self.path, self.labels)


@register(
    "cars3d", "Cars3D (nips2015-analogy-data.tar.gz, its folder, or cars3d.npz)",
    signs=("data/cars/*_mesh.mat", "nips2015-analogy-data.tar.gz", "cars3d.npz"),
)  # fmt: skip
def open_cars3d(path: Path, config: PackConfig) -> Source:
    """Open the source at a path, in either form."""
    form = Cars3dNpz if path.suffix == ".npz" else Cars3dMeshes
    return form(path, config.class_factors)


def choose(class_factors: Sequence[str]) -> Labels:
    """Choose the labels that define the class."""
    others = ("elevation", "azimuth")
    return Labels.chosen(class_factors, ("car",), others, (*others, "car"))


def _describe(path: Path, labels: Labels) -> dict:
    return {
        "format": "cars3d",
        "path": os.path.abspath(path),
        "class_factors": list(labels.classes),
    }
