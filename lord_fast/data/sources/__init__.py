"""Where images come from: one small module for each form, each a `Source` of records."""

from collections.abc import Callable
from pathlib import Path

from lord_fast.data.glyphs import Glyphs
from lord_fast.data.options import PackConfig
from lord_fast.data.records import Source
from lord_fast.data.sources.archive import Archive, is_archive
from lord_fast.data.sources.cars3d import open_cars3d
from lord_fast.data.sources.faces import CelebA, Rafd
from lord_fast.data.sources.folder import Folder
from lord_fast.data.sources.kth import Kth
from lord_fast.data.sources.mnist import Mnist
from lord_fast.data.sources.npz import NpzFile
from lord_fast.data.sources.shapes3d import Shapes3d
from lord_fast.data.sources.smallnorb import open_smallnorb

__all__ = ["Archive", "Folder", "NpzFile", "open_source"]

OPEN: dict[str, Callable[[Path, PackConfig], Source]] = {
    "folder": lambda path, config: Folder(path, config.content_pattern),
    "archive": lambda path, config: Archive(path, config.content_pattern),
    "npz": lambda path, config: NpzFile(path),
    "smallnorb": lambda path, config: open_smallnorb(path, config.class_factors),
    "cars3d": lambda path, config: open_cars3d(path, config.class_factors),
    "shapes3d": lambda path, config: Shapes3d(path, config.class_factors),
    "celeba": lambda path, config: CelebA(path),
    "kth": lambda path, config: Kth(path, config.class_factors, config.every),
    "rafd": lambda path, config: Rafd(path, config.class_factors),
    "mnist": lambda path, config: Mnist(path),
}
"""--format -> the source at a path."""


def open_source(source: str, config: PackConfig) -> Source:
    """The source that `lord-fast pack SOURCE` names.

    Raises:
        ValueError: it does not exist, is of another format or holds no images.
    """
    if config.format == "glyphs" or (config.format == "auto" and source == "glyphs"):
        return Glyphs(
            config.size, config.classes, config.typefaces, config.rotations, config.scales
        )
    path = Path(source)
    if not path.exists():
        raise ValueError(f"{path}: no such folder or file")
    return OPEN[_format(path) if config.format == "auto" else config.format](path, config)


def _format(path: Path) -> str:
    if path.is_dir():
        return "folder"
    if path.suffix == ".npz":
        return "npz"
    if is_archive(path):
        return "archive"
    raise ValueError(f"{path}: neither a folder, an archive nor an .npz file; see --format")
