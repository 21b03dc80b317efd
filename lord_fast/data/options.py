"""The options of `lord-fast pack`. Every field is a flag.

Options of a single format are defined next to its source in `lord_fast.data.sources`.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from lord_fast.bounds import AtLeast, Below, Checked, MoreThan, OneOf
from lord_fast.data.formats import format_names


@dataclass(frozen=True)
class PackConfig(Checked):
    """Options that all formats share."""

    format: Annotated[str, OneOf(format_names)] = "auto"
    """Format of SOURCE. auto recognizes a folder, a zip or tar of a folder, an .npz file, and the
    word glyphs."""
    size: Annotated[int, MoreThan(0), Below(4097)] = 64
    """Side of the packed images in pixels. The largest square in the middle of an image is scaled
    to it."""
    channels: Literal["auto", 1, 3] = "auto"
    """Number of channels, 1 for grey and 3 for RGB. auto selects grey if every image is grey."""
    content_pattern: str | None = None
    """A regular expression that is searched in the name of each file without its extension (only
    for folder and archive). Every named group becomes a content factor, such as (?P<angle>\\d+).
    By default see --content-labels."""
    content_labels: Literal["auto", "stem", "none"] = "auto"
    """Content labels of files (only for folder and archive without --content-pattern). stem takes
    the name without its extension, so that files of the same name in two classes count as the same
    content. none gives no labels. auto is stem if images that share a name resemble each other more
    than others, and none otherwise."""
    min_class_size: Annotated[int, MoreThan(0)] = 1
    """Leave out classes with fewer images. Training needs at least 2 of each."""
    class_factors: tuple[str, ...] = ()
    """The labels that define a class (only for data sets with several labels). Every data
    set has a default, such as the person for rafd and kth."""
    crop: str = "auto"
    """Region to cut out of every image before it is scaled, in pixels. Give WIDTHxHEIGHT for a
    region at the centre, WIDTHxHEIGHT+LEFT+TOP for one elsewhere, or none. auto cuts the
    central 128x128 pixels out of CelebA, as in the published experiments, and nothing elsewhere."""
    decoder: Literal["auto", "dali", "pillow"] = "auto"
    """Image decoder. auto uses DALI if it is installed and works, and Pillow otherwise."""
    encoded: bool = False
    """Keep the original files in the store and decode them during training. Use it if the decoded
    pixels fit neither in memory nor on disk."""
    max_bad: Annotated[int, AtLeast(0)] = 0
    """Number of broken images to tolerate, and of names that --content-pattern does not match.
    They are left out and listed in left_out.jsonl."""
    workers: Annotated[int, AtLeast(0), Below(1025)] = 0
    """Number of threads that decode images. 0 uses one for each core."""
