"""What every decoder does: turn encoded bytes into uint8 pixels of one size.

A decoder rotates the image as its EXIF orientation says. It makes grey from colour as ITU-R 601
luma, blends transparency on white and takes the upper byte of 16-bit values. Then it cuts the crop
out and scales it with an antialiased triangle filter.
"""

import errno
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

MAX_PIXELS = 100_000_000
"""Larger images are refused before decoding (a few kB of PNG can hold gigabytes of zeros)."""
MAX_BYTES = 256 << 20
"""Larger files are refused before reading."""
PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT)
"""Errors that say nothing about the file: the system has run out of something, or a network file
system is gone. Reading again may well succeed."""
Crop = tuple[int, int] | tuple[int, int, int, int]
"""(width, height) around the centre, or (width, height, left, top), in pixels."""
DecoderName = Literal["auto", "dali", "pillow"]


class BadImageError(ValueError):
    """An image that cannot be used; the message says why, without its name."""


@dataclass(frozen=True)
class Shape:
    """What images are made into.

    Attributes:
        size: Side of the result in pixels.
        channels: 1 (grey) or 3 (RGB).
        crop: Cut out before scaling; None: the whole image.
    """

    size: int
    channels: int
    crop: Crop | None = None

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of an image that is scaled: the largest square in the middle of the crop.

        Returns:
            left, top, right, bottom in pixels.

        Raises:
            BadImageError: the crop reaches over the image's edge.
        """
        left, top = 0.0, 0.0
        region = (width, height)
        if self.crop is not None:
            region = self.crop[:2]
            left, top = (width - region[0]) // 2, (height - region[1]) // 2
            if len(self.crop) == 4:
                left, top = self.crop[2:]
            if left < 0 or top < 0 or left + region[0] > width or top + region[1] > height:
                raise BadImageError(f"{width} x {height}: --crop reaches over its edge")
        side = min(region)
        left, top = left + (region[0] - side) / 2, top + (region[1] - side) / 2
        return left, top, left + side, top + side


class Decoder(Protocol):
    """Encoded bytes to pixels; safe to call from several threads."""

    def decode(self, files: Sequence[bytes]) -> list[np.ndarray | BadImageError]:
        """Each file's pixels, uint8 [size, size, channels], or why there are none.

        An image's pixels do not depend on the other images of the call.
        """
        ...

    def batch(self, files: Sequence[bytes]) -> "Tensor":
        """The same as one tensor, uint8 [B, size, size, channels], on the decoder's device.

        Raises:
            BadImageError: one of the files is broken.
        """
        ...

    def describe(self) -> dict[str, str]:
        """Who decodes, for a manifest or a header."""
        ...


def read_file(path: Path) -> bytes:
    """The bytes of a regular file.

    Raises:
        BadImageError: it is something else, unreadable or larger than `MAX_BYTES`.
        OSError: see `PASSING`.
    """
    try:
        status = path.stat()
        # A pipe would block for ever, and a folder may well be called x.png.
        if not stat.S_ISREG(status.st_mode):
            raise BadImageError("not a regular file")
        if status.st_size > MAX_BYTES:
            raise BadImageError(f"{status.st_size:,} bytes: more than {MAX_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        if error.errno in PASSING:
            raise
        raise BadImageError(error.strerror or str(error)) from error


def crop_flag(crop: Crop | Sequence[int]) -> str:
    """What `lord-fast pack --crop` takes: WIDTHxHEIGHT or WIDTHxHEIGHT+LEFT+TOP."""
    width, height, *offset = crop
    return "+".join((f"{width}x{height}", *map(str, offset)))
