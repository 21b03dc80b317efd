"""How a source becomes a store: a field is a flag of `lord-fast pack`.

Options that one format has alone lie beside its source in `lord_fast.data.sources`.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from lord_fast.bounds import AtLeast, Below, Checked, MoreThan, OneOf
from lord_fast.data.formats import format_names


@dataclass(frozen=True)
class PackConfig(Checked):
    """How a source becomes a store."""

    format: Annotated[str, OneOf(format_names)] = "auto"
    """What SOURCE is. auto: a folder, a zip or tar of one, an .npz file, or the word glyphs."""
    size: Annotated[int, MoreThan(0), Below(4097)] = 64
    """Side of the packed images in pixels. The largest square in the middle of an image is scaled
    to it."""
    channels: Literal["auto", 1, 3] = "auto"
    """1: grey. 3: RGB. auto: grey if every image is."""
    content_pattern: str | None = None
    """folder, archive: a regular expression that is searched in each file's stem. Every named
    group becomes a content factor, such as (?P<angle>\\d+). Without it the whole stem is the one
    content label."""
    min_class_size: Annotated[int, MoreThan(0)] = 1
    """Leave out classes with fewer images. Training needs at least 2 of each."""
    class_factors: tuple[str, ...] = ()
    """Data sets with several labels: the labels that define a class. Without it those of the
    published use."""
    crop: str = "auto"
    """Cut WIDTHxHEIGHT pixels (around the centre) or WIDTHxHEIGHT+LEFT+TOP out of every image
    before it is scaled. none: nothing. auto: what the data set's published use cuts out."""
    decoder: Literal["auto", "dali", "pillow"] = "auto"
    """Image decoder. auto: DALI where it is installed and works, else Pillow."""
    encoded: bool = False
    """Keep the original files in the store and decode them while training, for data whose pixels
    fit neither memory nor disk."""
    max_bad: Annotated[int, AtLeast(0)] = 0
    """Number of broken images to tolerate. They are left out and listed in left_out.jsonl."""
    workers: Annotated[int, AtLeast(0), Below(1025)] = 0
    """Threads that decode. 0: one for each core."""
