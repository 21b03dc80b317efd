"""How a source becomes a store: a field is a flag of `lord-fast pack`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from lord_fast.bounds import AtLeast, Below, Checked, MoreThan


@dataclass(frozen=True)
class PackConfig(Checked):
    """How a source becomes a store."""

    format: Literal[
        "auto", "folder", "archive", "npz", "glyphs", "smallnorb", "cars3d", "shapes3d", "celeba",
        "kth", "rafd", "mnist",
    ] = "auto"  # fmt: skip
    """What SOURCE is; auto: a folder, a zip or tar of one, an .npz file, or the word glyphs. The
    data sets are read from the files that they are published as (docs/data.md)."""
    size: Annotated[int, MoreThan(0), Below(4097)] = 64
    """Side of the packed images: the shorter side is resized to it, the longer one cropped."""
    channels: Literal["auto", 1, 3] = "auto"
    """1 (grey), 3 (RGB), or auto: grey if every image is."""
    content_pattern: str | None = None
    """folder: a regular expression searched in each file's stem; every named group becomes a
    content factor, such as (?P<angle>\\d+). Without it the whole stem is the one content label."""
    min_class_size: Annotated[int, MoreThan(0)] = 1
    """Leave out classes with fewer images; training needs at least 2 of each."""
    class_factors: tuple[str, ...] = ()
    """Data sets with several labels: those that together make the class; none: the published."""
    crop: str = "auto"
    """Cut WIDTHxHEIGHT pixels (around the centre) or WIDTHxHEIGHT+LEFT+TOP out of every image
    before scaling; none: nothing; auto: what the data set's published use cuts out."""
    every: Annotated[int, MoreThan(0)] = 1
    """kth: take every n-th frame of a video."""
    decoder: Literal["auto", "dali", "pillow"] = "auto"
    """Who decodes; auto: DALI where it is installed and works."""
    encoded: bool = False
    """Keep the original files in the store and decode them while training, for data whose pixels
    fit neither memory nor disk."""
    max_bad: Annotated[int, AtLeast(0)] = 0
    """Pack although so many images are broken; they are left out, and listed in left_out.jsonl."""
    workers: Annotated[int, AtLeast(0), Below(1025)] = 0
    """Threads that decode; 0: as many as there are cores."""
    classes: Annotated[int, MoreThan(0)] = 62
    """glyphs: number of characters."""
    typefaces: tuple[str, ...] = ()
    """glyphs: names of matplotlib's fonts; none: ten typefaces for up to 62 classes, fewer that
    share more characters for more classes."""
    rotations: tuple[float, ...] = (-30, -15, 0, 15, 30)
    """glyphs: rotations in degrees."""
    scales: tuple[float, ...] = (1.0,)
    """glyphs: relative sizes; a content factor if there are several."""
