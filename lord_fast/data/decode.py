"""Encoded image files to uint8 pixels of one size."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 100_000_000
"""Larger images are refused before decoding (a few kB of PNG can hold gigabytes of zeros)."""
GREY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "F"}


class BadImageError(ValueError):
    """An image that cannot be used; the message says why, without its name."""


def open_image(path: Path) -> Image.Image:
    """Open a file and read its header, not yet its pixels.

    Raises:
        BadImageError: not an image, empty, unreadable, or larger than `MAX_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
    except UnidentifiedImageError as error:
        reason = "empty file" if path.stat().st_size == 0 else "not an image that Pillow reads"
        raise BadImageError(reason) from error
    except Image.DecompressionBombError as error:
        raise BadImageError(f"more than {MAX_PIXELS:,} pixels") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise BadImageError(str(error)) from error
    if image.width * image.height > MAX_PIXELS:
        raise BadImageError(f"{image.width} x {image.height}: more than {MAX_PIXELS:,} pixels")
    return image


def is_grey(path: Path) -> bool:
    """Whether the header of an image file says that it holds grey values only.

    Raises:
        BadImageError: see `open_image`.
    """
    with open_image(path) as image:
        return image.mode in GREY_MODES


def decode(path: Path, size: int, channels: int) -> np.ndarray:
    """A file as uint8 pixels: turned as EXIF says, blended on white, resized and centre-cropped.

    Args:
        path: PNG, JPEG, PGM or anything else that Pillow reads.
        size: Side of the result; the shorter side is resized to it (antialiased triangle filter)
            and the longer one cropped around its centre.
        channels: 1 (grey, ITU-R 601 luma) or 3 (RGB).

    Returns:
        uint8 [size, size, channels].

    Raises:
        BadImageError: the file is broken, truncated or too large.
    """
    with open_image(path) as image:
        try:
            image.load()
            return fit(ImageOps.exif_transpose(image), size, channels)
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise BadImageError(str(error)) from error


def fit(image: Image.Image, size: int, channels: int) -> np.ndarray:
    """An opened image as uint8 [size, size, channels]; see `decode`."""
    mode = "L" if channels == 1 else "RGB"
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _to_eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = ImageOps.fit(image.convert(mode), (size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(size, size, channels)


def fit_array(pixels: np.ndarray, size: int, channels: int) -> np.ndarray:
    """Decoded pixels, uint8 [H, W] or [H, W, 1 or 3], as uint8 [size, size, channels].

    Raises:
        BadImageError: another type or shape.
    """
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise BadImageError(f"{pixels.dtype} {list(pixels.shape)}: need uint8 [H, W, 1 or 3]")
    return fit(Image.fromarray(pixels), size, channels)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey by its upper byte; 32-bit integers and floats are taken as 16-bit and [0, 1]."""
    values = np.asarray(image)
    if image.mode == "F":
        return Image.fromarray((np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8))
    return Image.fromarray((np.clip(values, 0, 65535) >> 8).astype(np.uint8))
