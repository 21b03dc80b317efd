"""The interface of decoders, which turn encoded images into uint8 pixels of one size.

A decoder rotates the image as its EXIF orientation says. It converts colour to grey with the ITU-R
601 luma, blends transparency with white and keeps the upper byte of 16-bit values. Then it cuts out
the crop and scales it with an antialiased triangle filter.
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
"""Largest image that is decoded. A PNG file of a few kB can hold gigabytes of zeros."""
MAX_BYTES = 256 << 20
"""Largest file that is read."""
PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT)
"""Errors that do not depend on the file. The system has run out of a resource, or a network file
system is not available. A second attempt may succeed."""
Crop = tuple[int, int] | tuple[int, int, int, int]
"""(width, height) around the centre, or (width, height, left, top), in pixels."""
DecoderName = Literal["auto", "dali", "pillow"]


class BadImageError(ValueError):
    """An image cannot be used. The message gives the reason but not the name of the image."""


@dataclass(frozen=True)
class Shape:
    """The shape of decoded images.

    Attributes:
        size: Side of the result in pixels.
        channels: 1 (grey) or 3 (RGB).
        crop: The region to cut out before scaling, or None for the whole image.
    """

    size: int
    channels: int
    crop: Crop | None = None

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return the largest square in the middle of the crop, which is the part to scale.

        Args:
            width: Width of the image in pixels.
            height: Height of the image in pixels.

        Returns:
            left, top, right, bottom in pixels.

        Raises:
            BadImageError: The crop exceeds the image.
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
    """Turns encoded images into pixels. It may be called from several threads."""

    def decode(self, files: Sequence[bytes]) -> list[np.ndarray | BadImageError]:
        """Decode files to pixels, uint8 [size, size, channels], or to errors.

        The pixels of an image do not depend on the other images of the call.
        """
        ...

    def batch(self, files: Sequence[bytes]) -> "Tensor":
        """Decode files to one tensor, uint8 [B, size, size, channels], on the decoder's device.

        Raises:
            BadImageError: A file is broken.
        """
        ...

    def describe(self) -> dict[str, str]:
        """Describe the decoder for a manifest or a header."""
        ...


def read_file(path: Path) -> bytes:
    """Read a regular file.

    Raises:
        BadImageError: The path is not a regular file, is not readable, or has more than
            `MAX_BYTES`.
        OSError: One of the errors in `PASSING`.
    """
    try:
        status = path.stat()
        # Reading a pipe would block forever, and a folder may be called x.png.
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
    """Return a crop in the syntax of `lord-fast pack --crop`, such as 128x128 or 128x128+8+16."""
    width, height, *offset = crop
    return "+".join((f"{width}x{height}", *map(str, offset)))
