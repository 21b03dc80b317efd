"""Encoded images to uint8 pixels of one size: the contract, and Pillow's implementation of it.

Every decoder turns the image as its EXIF orientation says, takes grey from colour as ITU-R 601
luma, blends transparency on white, takes the upper byte of 16-bit values, cuts the region out and
scales it with an antialiased triangle filter. `lord_fast.data.dali` is the other implementation.
"""

import io
import stat
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

if TYPE_CHECKING:
    from torch import Tensor

MAX_PIXELS = 100_000_000
"""Larger images are refused before decoding (a few kB of PNG can hold gigabytes of zeros)."""
MAX_BYTES = 1 << 30
"""Larger files are refused before reading."""
GREY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "F"}
Image.init()
FORMATS = sorted(
    {"AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF",
     "WEBP"} & set(Image.OPEN)
)  # fmt: skip
"""Pillow's names of what is read: no format whose reader starts another program (EPS)."""

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


class PillowDecoder:
    """Pillow, on as many threads.

    Args:
        shape: What images are made into.
        threads: Threads of one call; 1: the caller's.
    """

    def __init__(self, shape: Shape, threads: int = 1):
        self.shape = shape
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def decode(self, files: Sequence[bytes]) -> list[np.ndarray | BadImageError]:
        """See `Decoder`."""
        if self._pool is None:
            return [self._one(file) for file in files]
        return list(self._pool.map(self._one, files))

    def batch(self, files: Sequence[bytes]) -> "Tensor":
        """See `Decoder`."""
        import torch

        images = []
        for image in self.decode(files):
            if isinstance(image, BadImageError):
                raise image
            images.append(image)
        return torch.from_numpy(np.stack(images))

    def describe(self) -> dict[str, str]:
        """Name and version."""
        return {"name": "pillow", "version": Image.__version__}

    def _one(self, file: bytes) -> np.ndarray | BadImageError:
        try:
            return _decode(file, self.shape)
        except BadImageError as error:
            return error


def open_decoder(name: DecoderName, shape: Shape, threads: int, device: str = "cpu") -> Decoder:
    """The decoder that --decoder names; auto: DALI if it works here, else Pillow.

    Args:
        name: auto, dali or pillow.
        shape: What images are made into.
        threads: Threads that one call may use.
        device: cpu, or cuda to decode there (DALI only).

    Raises:
        ValueError: dali is asked for and does not work here; quotes its own reason.
    """
    if name == "pillow":
        return PillowDecoder(shape, threads)
    from lord_fast.data.dali import DaliDecoder, DaliUnavailableError

    try:
        return DaliDecoder(shape, threads, device)
    except DaliUnavailableError as error:
        if name == "dali":
            raise ValueError(
                f"--decoder dali: {error}; install it with pip install 'lord-fast[dali]', or use "
                f"--decoder pillow"
            ) from error
        return PillowDecoder(shape, threads)


def read_file(path: Path) -> bytes:
    """The bytes of a regular file.

    Raises:
        BadImageError: it is something else, empty, unreadable or larger than `MAX_BYTES`.
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
        raise BadImageError(error.strerror or str(error)) from error


def open_image(file: Path | bytes) -> Image.Image:
    """Read an image's header, not yet its pixels.

    Raises:
        BadImageError: not an image, empty, unreadable, or larger than `MAX_PIXELS`.
    """
    data = read_file(file) if isinstance(file, Path) else file
    if not data:
        raise BadImageError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise BadImageError("not an image that Pillow reads") from error
    except Image.DecompressionBombError as error:
        raise BadImageError(f"more than {MAX_PIXELS:,} pixels") from error
    # Pillow's readers raise anything on damaged headers.
    except Exception as error:
        raise BadImageError(_reason(error)) from error
    if image.width * image.height > MAX_PIXELS:
        raise BadImageError(f"{image.width} x {image.height}: more than {MAX_PIXELS:,} pixels")
    return image


def is_grey(file: Path | bytes) -> bool:
    """Whether the header of an image says that it holds grey values only.

    Raises:
        BadImageError: see `open_image`.
    """
    with open_image(file) as image:
        return image.mode in GREY_MODES


def decode(file: Path | bytes, size: int, channels: int) -> np.ndarray:
    """One image as Pillow decodes it.

    Args:
        file: PNG, JPEG, PGM or another of `FORMATS`.
        size: Side of the result; the shorter side is scaled to it, the longer one cropped around
            its centre.
        channels: 1 (grey) or 3 (RGB).

    Returns:
        uint8 [size, size, channels].

    Raises:
        BadImageError: the file is broken, truncated or too large.
    """
    return _decode(file, Shape(size, channels))


def _decode(file: Path | bytes, shape: Shape) -> np.ndarray:
    with open_image(file) as image:
        try:
            image.load()
            image = ImageOps.exif_transpose(image)
        except Exception as error:
            raise BadImageError(_reason(error)) from error
        return fit(image, shape)


def fit(image: Image.Image, shape: Shape) -> np.ndarray:
    """An opened image as uint8 [size, size, channels].

    Raises:
        BadImageError: see `Shape.box`.
    """
    box = shape.box(*image.size)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _to_eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("L" if shape.channels == 1 else "RGB")
    image = image.resize((shape.size, shape.size), Image.Resampling.BILINEAR, box)
    return np.asarray(image).reshape(shape.size, shape.size, shape.channels)


def fit_array(pixels: np.ndarray, shape: Shape) -> np.ndarray:
    """Decoded pixels, uint8 [H, W] or [H, W, 1 or 3], as uint8 [size, size, channels].

    Raises:
        BadImageError: another type or shape.
    """
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise BadImageError(f"{pixels.dtype} {list(pixels.shape)}: need uint8 [H, W, 1 or 3]")
    return fit(Image.fromarray(pixels), shape)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey by its upper byte; 32-bit integers and floats are taken as 16-bit and [0, 1]."""
    values = np.asarray(image)
    if image.mode == "F":
        return Image.fromarray((np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8))
    return Image.fromarray((np.clip(values, 0, 65535) >> 8).astype(np.uint8))


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
