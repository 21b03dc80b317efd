"""The data sets CelebA and RaFD, which are photographs of faces."""

import functools
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lord_fast.data.formats import register
from lord_fast.data.options import PackConfig
from lord_fast.data.records import Record, Source
from lord_fast.data.sources.archive import open_zip, read_member, refused_member
from lord_fast.data.sources.labels import Labels, image_extensions, refuse
from lord_fast.data.sources.named import NamedFiles, groups

IDENTITIES = "identity_CelebA.txt"
ALIGNED = "img_align_celeba"
HEADER = re.compile(r"\s*(\d+|[A-Za-z_]+[ \t,]+[A-Za-z_]+)\s*")
"""A line before the identities, with their number or with the names of two columns."""


class CelebA(Source):
    """The aligned images of CelebA (Liu et al., ICCV 2015). The class is the identity.

    Args:
        path: A folder with identity_CelebA.txt in it or in Anno/. The images are in
            img_align_celeba/ or img_align_celeba.zip, in the folder or in Img/.

    Raises:
        ValueError: The identities or the images are missing, or a line of identities is damaged.
    """

    crop = (128, 128)
    channels = 3

    def __init__(self, path: Path):
        self.path = path
        lists = [path / IDENTITIES, path / "Anno" / IDENTITIES]
        found = next((file for file in lists if file.is_file()), None)
        if found is None:
            raise ValueError(f"{path}: no {IDENTITIES} in it or in its Anno/")
        self.identities = read_identities(found)
        self.open_image = self._images()

    def __len__(self) -> int:
        return len(self.identities)

    def __iter__(self) -> Iterator[Record]:
        for name, identity in self.identities.items():
            yield Record(name, identity, {}, *self.open_image(name))

    def describe(self) -> dict:
        """Return format and folder."""
        return {"format": "celeba", "path": os.path.abspath(self.path)}

    def _images(self) -> Callable[[str], tuple[Path | Callable[[], bytes], int]]:
        """Return a function that maps a name to the image and its size (0 for files)."""
        for folder in (self.path / ALIGNED, self.path / "Img" / ALIGNED):
            if folder.is_dir():
                return lambda name: (folder / name, 0)
        for file in (self.path / f"{ALIGNED}.zip", self.path / "Img" / f"{ALIGNED}.zip"):
            if file.is_file():
                archive = open_zip(file)
                return lambda name: _member(archive, f"{ALIGNED}/{name}")
        raise ValueError(f"{self.path}: no {ALIGNED}/ or {ALIGNED}.zip in it or in its Img/")


@register(
    "celeba", "CelebA (identity_CelebA.txt and the aligned images)",
    signs=(IDENTITIES, f"Anno/{IDENTITIES}", ALIGNED),
)  # fmt: skip
def open_celeba(path: Path, config: PackConfig) -> Source:
    """Open the source at a path."""
    return CelebA(path)


def read_identities(path: Path) -> dict[str, str]:
    """Read the identity of each file name. The first lines may be a count or names of columns.

    Raises:
        ValueError: A line is damaged, or a name is not a plain file name.
    """
    identities: dict[str, str] = {}
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        match = re.fullmatch(r"([\w-]+\.(?:jpg|png))[ \t,]+(\d+)\s*", line)
        if match is None and not identities and HEADER.fullmatch(line):
            continue
        if match is None:
            raise ValueError(f"{path}, line {number}: must be a file's name and a number: {line!r}")
        identities[match[1]] = match[2]
    return identities


def _member(archive: zipfile.ZipFile, name: str) -> tuple[Callable[[], bytes], int]:
    """Return a function that reads an image of the archive, and the image's size in bytes."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        return functools.partial(refuse, "not in the archive"), 0
    refused = refused_member(info)
    if refused is not None:
        return functools.partial(refuse, refused), 0
    return functools.partial(read_member, archive, info), info.file_size


RAFD = re.compile(
    r"Rafd(?P<camera>\d{3})_(?P<model>\d{2})_(?P<population>[A-Za-z]+)_(?P<sex>male|female)"
    r"_(?P<expression>[a-z]+)_(?P<gaze>frontal|left|right)$"
)


class Rafd(NamedFiles):
    """The Radboud Faces Database (Langner et al., 2010). All labels are part of the file names.

    The class is the model, and the content is camera, expression and gaze. Use --crop to cut out
    the faces. Class and images are not known to be those of the published experiments.

    Args:
        path: A folder that holds, at any depth, images such as
            Rafd090_01_Caucasian_female_angry_frontal.jpg.
        class_factors: Labels that define the class. Defaults to the model.

    Raises:
        ValueError: There are no such images.
    """

    def __init__(self, path: Path, class_factors: Sequence[str] = ()):
        content = ("camera", "expression", "gaze")
        others = (*content, "population", "sex")
        labels = Labels.chosen(class_factors, ("model",), others, ("model", *content))
        extensions = image_extensions()
        files = [
            file
            for file in sorted(path.rglob("Rafd*"))
            if file.suffix.lower() in extensions and RAFD.match(file.stem)
        ]
        if not files:
            raise ValueError(
                f"{path}: no Rafd090_01_Caucasian_female_angry_frontal.jpg or similar names"
            )
        super().__init__("rafd", path, files, labels)

    def labels_of(self, file: Path) -> dict[str, str]:
        """See `NamedFiles`."""
        return groups(RAFD.match(file.stem))


@register(
    "rafd", "RaFD (Rafd090_01_Caucasian_female_angry_frontal.jpg)", names_are_paths=True,
    signs=("Rafd???_??_*.jpg",),
)  # fmt: skip
def open_rafd(path: Path, config: PackConfig) -> Source:
    """Open the source at a path."""
    return Rafd(path, config.class_factors)
