"""The embedded data set, which renders characters of matplotlib's fonts in a grid of poses.

The class is the character. The content is typeface x rotation (x scale). No download is needed. The
bytes are the same on every machine with the same font files and the same FreeType.
"""

import functools
import hashlib
import itertools
import string
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image, ImageFont, features

from lord_fast.bounds import Below, Checked, MoreThan
from lord_fast.data.formats import register
from lord_fast.data.options import PackConfig
from lord_fast.data.records import Record, Source

ALPHANUMERIC = string.digits + string.ascii_uppercase + string.ascii_lowercase
COMPUTER_MODERN = ("cmb10", "cmr10", "cmss10", "cmti10", "cmtt10")
LATIN = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif",
    "DejaVuSerif-Bold", "STIXGeneral", "STIXGeneralBol", "cmss10", "cmtt10",
)  # fmt: skip
"""The ten upright text faces whose most similar pair differs most. Slanted faces are left out,
because a slant resembles a rotation."""
DEJAVU = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique",
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic",
    "DejaVuSansMono", "DejaVuSansMono-Bold",
)  # fmt: skip
TYPEFACE_SETS = (LATIN, DEJAVU, DEJAVU[:4], DEJAVU[:2])
"""Sets with many typefaces and few shared characters first, few typefaces and many characters last.
"""

SUPERSAMPLING = 4
EM = 0.64
"""Height of the em square at scale 1, as a fraction of the side of the image."""


@dataclass(frozen=True)
class GlyphOptions(Checked):
    """The embedded characters in many typefaces and poses."""

    classes: Annotated[int, MoreThan(0)] = 62
    """Number of characters."""
    typefaces: tuple[str, ...] = ()
    """Names of fonts that matplotlib ships. By default ten typefaces are used for up to 62 classes.
    For more classes fewer typefaces are used, because only these share enough characters."""
    rotations: tuple[Annotated[float, MoreThan(-360), Below(360)], ...] = (-30, -15, 0, 15, 30)
    """Rotations of the characters in degrees."""
    scales: tuple[Annotated[float, MoreThan(0), Below(16)], ...] = (1.0,)
    """Relative sizes of the characters. If there are several, the size is a content factor."""


def font_file(typeface: str) -> Path:
    """The path of the font file of a typeface that matplotlib ships.

    Raises:
        ValueError: There is no such typeface. The message lists all typefaces.
    """
    import matplotlib  # takes long

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    path = folder / f"{typeface}.ttf"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.ttf")))
        raise ValueError(f"--typefaces {typeface}: no such font; there are {known}")
    return path


def characters(typefaces: Sequence[str]) -> str:
    """The characters that all `typefaces` can draw, with ASCII letters and digits first.

    Marks, spaces and controls are left out. So are characters that look like an earlier one in the
    first typeface. For example, Latin A and Greek Alpha would be one class with two names. If a
    Computer Modern font takes part, only ASCII letters and digits are returned, because these fonts
    have other symbols at the remaining code points.
    """
    from matplotlib.ft2font import FT2Font

    if set(typefaces) & set(COMPUTER_MODERN):
        return ALPHANUMERIC
    shared = set.intersection(*(set(FT2Font(font_file(t)).get_charmap()) for t in typefaces))
    others = sorted(shared - {ord(char) for char in ALPHANUMERIC})
    drawn = [chr(c) for c in others if unicodedata.category(chr(c))[0] not in "CMZ"]
    font = _font(typefaces[0], 96)
    pictures: dict[bytes, str] = {}
    for char in itertools.chain(ALPHANUMERIC, drawn):
        mask = font.getmask(char)
        if mask.getbbox() is not None:
            picture = hashlib.sha256(repr(mask.size).encode() + bytes(mask)).digest()
            pictures.setdefault(picture, char)
    return "".join(pictures.values())


class Glyphs(Source):
    """A source of records (see `lord_fast.data.records`) with every character in every pose.

    Args:
        size: Side of the images in pixels.
        num_classes: Number of characters.
        typefaces: Names of matplotlib's fonts. If empty, the first of `TYPEFACE_SETS` with
            `num_classes` characters is used.
        rotations: Rotations in degrees, counter-clockwise.
        scales: Sizes relative to the default. Several sizes become a content factor.

    Raises:
        ValueError: A typeface is unknown, or the typefaces share fewer than `num_classes`
            characters.
    """

    channels = 1
    has_files = False

    def __init__(
        self,
        size: int = 32,
        num_classes: int = 62,
        typefaces: Sequence[str] = (),
        rotations: Sequence[float] = (-30, -15, 0, 15, 30),
        scales: Sequence[float] = (1.0,),
    ):
        if not rotations or not scales:
            raise ValueError("--rotations and --scales need at least one value each")
        if EM * min(scales) * size < 1:
            raise ValueError(
                f"--scales {min(scales):g}: makes characters smaller than a pixel; give a larger "
                f"scale or --size"
            )
        self.size, self.rotations, self.scales = size, rotations, scales
        for self.typefaces in (typefaces,) if typefaces else TYPEFACE_SETS:
            self.chars = characters(self.typefaces)[:num_classes]
            if len(self.chars) == num_classes:
                return
        raise ValueError(
            f"--classes {num_classes}: the typefaces {', '.join(self.typefaces)} share only "
            f"{len(self.chars)} characters; ask for fewer classes or choose other --typefaces"
        )

    def __len__(self) -> int:
        return len(self.chars) * len(self.typefaces) * len(self.rotations) * len(self.scales)

    def __iter__(self) -> Iterator[Record]:
        for char in self.chars:
            name = f"U+{ord(char):04X}" if char not in ALPHANUMERIC else char
            for typeface, rotation, scale in itertools.product(
                self.typefaces, self.rotations, self.scales
            ):
                content = {"typeface": typeface, "rotation": f"{rotation:g}"}
                if len(self.scales) > 1:
                    content["scale"] = f"{scale:g}"
                yield Record(
                    name="/".join((name, *content.values())),
                    class_name=name,
                    content=content,
                    image=functools.partial(
                        draw, char, typeface, size=self.size, rotation=rotation, scale=scale
                    ),
                )

    def describe(self) -> dict:
        """The font hashes, versions and grid that determine the pixels, for the manifest."""
        return {
            "format": "glyphs",
            "fonts": {
                name: hashlib.sha256(font_file(name).read_bytes()).hexdigest()
                for name in self.typefaces
            },
            "rotations": list(self.rotations),
            "scales": list(self.scales),
            "pillow": Image.__version__,
            "freetype": features.version("freetype2"),
        }


@register("glyphs", "the embedded characters (SOURCE is the word glyphs)", GlyphOptions, False)
def open_glyphs(path: Path, config: PackConfig, options: GlyphOptions) -> Source:
    """Open the embedded characters. The path is not used."""
    return Glyphs(
        config.size, options.classes, options.typefaces, options.rotations, options.scales
    )


@functools.lru_cache(maxsize=256)
def _font(typeface: str, pixels: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(
        str(font_file(typeface)), pixels, layout_engine=ImageFont.Layout.BASIC
    )


def draw(char: str, typeface: str, size: int, rotation: float = 0, scale: float = 1) -> np.ndarray:
    """Draw one character in white on black, centred.

    A character that would leave the image when it is rotated is shrunk.

    Args:
        char: The character.
        typeface: Name of a font, see `font_file`.
        size: Side of the image in pixels.
        rotation: Rotation in degrees, counter-clockwise.
        scale: Size relative to the default.

    Returns:
        uint8 [size, size, 1].
    """
    side = size * SUPERSAMPLING
    pixels = round(EM * scale * side)
    mask = _font(typeface, pixels).getmask(char)
    diagonal = float(np.hypot(*mask.size))
    if diagonal > side:
        mask = _font(typeface, int(pixels * side / diagonal)).getmask(char)
    ink = Image.frombytes("L", mask.size, bytes(mask))
    canvas = Image.new("L", (side, side))
    canvas.paste(ink, ((side - ink.width) // 2, (side - ink.height) // 2))
    canvas = canvas.rotate(rotation, resample=Image.Resampling.BILINEAR)
    return np.asarray(canvas.reduce(SUPERSAMPLING))[:, :, None]
