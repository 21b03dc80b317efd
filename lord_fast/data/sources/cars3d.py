"""Cars3D: 183 car models from 24 azimuths and 4 elevations (Reed et al., NeurIPS 2015)."""

import functools
import io
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from lord_fast.data.formats import register
from lord_fast.data.options import PackConfig
from lord_fast.data.records import Record, Source
from lord_fast.data.sources.archive import is_archive, members
from lord_fast.data.sources.labels import Labels
from lord_fast.data.sources.npz import stored_array

AZIMUTHS, ELEVATIONS = 24, 4
MESH = "_mesh.mat"


class Cars3dMeshes(Source):
    """One MATLAB file a car, `im` uint8 [height, width, 3, 24 azimuths, 4 elevations].

    Args:
        path: `nips2015-analogy-data.tar.gz`, or a folder that it was unpacked to.
        class_factors: Labels that make the class; empty: the car.

    Raises:
        ValueError: there are no such files.
    """

    channels = 3
    has_files = False

    def __init__(self, path: Path, class_factors: Sequence[str] = ()):
        self.path, self.labels = path, choose(class_factors)
        self.count = sum(1 for _ in self._files())
        if not self.count:
            raise ValueError(f"{path}: no car_001{MESH} and so on in it")

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
                yield Record(f"{car}/{azimuth}_{elevation}", class_name, content, image)

    def describe(self) -> dict:
        """Format, place and class."""
        return _describe(self.path, self.labels)

    def _files(self) -> Iterator[tuple[str, bytes]]:
        if is_archive(self.path):
            for name, content in members(self.path):
                if name.endswith(MESH) and isinstance(content, str):
                    raise ValueError(f"{self.path}: {name}: {content}")
                if name.endswith(MESH) and isinstance(content, bytes):
                    yield name, content
        else:
            for file in sorted(self.path.rglob(f"*{MESH}")):
                yield file.name, file.read_bytes()


def read_mesh(name: str, data: bytes) -> np.ndarray:
    """A car's images, uint8 [24 azimuths, 4 elevations, height, width, 3].

    Raises:
        ValueError: not such a file.
    """
    # SciPy comes with scikit-learn; importing it takes longer than most of this module's work.
    from scipy.io import loadmat

    try:
        im = loadmat(io.BytesIO(data))["im"]
    except Exception as error:  # whatever a damaged file makes of SciPy's reader
        raise ValueError(f"{name}: not a MATLAB file with an array im ({error})") from error
    if im.dtype != np.uint8 or im.ndim != 5 or im.shape[2:] != (3, AZIMUTHS, ELEVATIONS):
        raise ValueError(f"{name}: im is {im.dtype} {list(im.shape)}: must be uint8 [H, W, 3, "
                         f"{AZIMUTHS}, {ELEVATIONS}]")  # fmt: skip
    return im.transpose(3, 4, 0, 1, 2)


class Cars3dNpz(Source):
    """An npz file with all of them, `imgs` or `images` [4 elevations x 24 azimuths x cars, ...].

    Args:
        path: The file; the first three dimensions may be one or three.
        class_factors: See `Cars3dMeshes`.

    Raises:
        ValueError: not such a file.
    """

    channels = 3
    has_files = False

    def __init__(self, path: Path, class_factors: Sequence[str] = ()):
        self.path, self.labels = path, choose(class_factors)
        with np.load(path, allow_pickle=False) as arrays:
            name = next((n for n in ("imgs", "images") if n in arrays.files), None)
        if name is None:
            raise ValueError(f"{path}: no array imgs or images")
        images = stored_array(path, name)
        images = images.reshape(-1, *images.shape[-3:])
        self.cars, rest = divmod(len(images), ELEVATIONS * AZIMUTHS)
        if rest or not self.cars or images.dtype != np.uint8 or images.shape[3] != 3:
            raise ValueError(
                f"{path}: {name} is {images.dtype} {list(images.shape)}: must be uint8 "
                f"[{ELEVATIONS} elevations x {AZIMUTHS} azimuths x cars, H, W, 3]"
            )
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Record]:
        grid = itertools.product(range(ELEVATIONS), range(AZIMUTHS), range(self.cars))
        for i, (elevation, azimuth, car) in enumerate(grid):
            labels = {"car": str(car), "elevation": str(elevation), "azimuth": str(azimuth)}
            class_name, content = self.labels.split(labels)
            image = functools.partial(self.images.__getitem__, i)
            yield Record(str(i), class_name, content, image)

    def describe(self) -> dict:
        """Format, file and class."""
        return _describe(self.path, self.labels)


@register("cars3d", "Cars3D: nips2015-analogy-data.tar.gz, its folder, or cars3d.npz")
def open_cars3d(path: Path, config: PackConfig) -> Source:
    """The source for whichever form it is."""
    form = Cars3dNpz if path.suffix == ".npz" else Cars3dMeshes
    return form(path, config.class_factors)


def choose(class_factors: Sequence[str]) -> Labels:
    """What is class and what is content."""
    others = ("elevation", "azimuth")
    return Labels.chosen(class_factors, ("car",), others, (*others, "car"))


def _describe(path: Path, labels: Labels) -> dict:
    return {
        "format": "cars3d",
        "path": os.path.abspath(path),
        "class_factors": list(labels.classes),
    }
