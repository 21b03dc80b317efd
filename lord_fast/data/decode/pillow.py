"""Implements `lord_fast.data.decode.contract.Decoder` with Pillow."""

import importlib.util
import io
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lord_fast.data.decode.contract import MAX_PIXELS, BadImageError, Shape, read_file

if TYPE_CHECKING:
    from torch import Tensor

GREY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "F"}
Image.init()
if importlib.util.find_spec("pillow_heif"):
    import pillow_heif

    pillow_heif.register_heif_opener()
FORMATS = sorted(
    {"AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "SGI", "TGA",
     "TIFF", "WEBP"} & set(Image.OPEN)
)  # fmt: skip
"""Pillow's names of the formats that are read. EPS is excluded, because Pillow would start another
program to read it."""


class PillowDecoder:
    """Decodes with Pillow in several threads.

    Args:
        shape: Size, channels and crop of the decoded images.
        threads: Number of threads. With 1, images are decoded in the caller's thread.
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
        """Return name and version."""
        return {"name": "pillow", "version": Image.__version__}

    def _one(self, file: bytes) -> np.ndarray | BadImageError:
        try:
            return _decode(file, self.shape)
        except BadImageError as error:
            # A new exception, because the traceback of the old one keeps the file in memory.
            return BadImageError(str(error))


def open_image(file: Path | bytes) -> Image.Image:
    """Read the header of an image but not its pixels.

    Raises:
        BadImageError: The file is not an image, is empty or unreadable, or has more than
            `MAX_PIXELS`.
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
    # Pillow raises exceptions of any type for damaged headers.
    except Exception as error:
        raise BadImageError(_reason(error)) from error
    if image.width * image.height > MAX_PIXELS:
        raise BadImageError(f"{image.width} x {image.height}: more than {MAX_PIXELS:,} pixels")
    return image


def is_grey(file: Path | bytes) -> bool:
    """Return whether an image is grey according to its header.

    Raises:
        BadImageError: The image cannot be opened, see `open_image`.
    """
    with open_image(file) as image:
        return image.mode in GREY_MODES


class _Budget:
    """Limits the number of pixels that all threads together decode at the same time.

    Args:
        limit: The largest number of pixels. A larger image is decoded alone.
    """

    def __init__(self, limit: int):
        self.limit = self.free = limit
        self.changed = threading.Condition()

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Reserve a number of pixels while the block runs. Wait until they are free."""
        pixels = min(pixels, self.limit)
        with self.changed:
            self.changed.wait_for(lambda: self.free >= pixels)
            self.free -= pixels
        try:
            yield
        finally:
            with self.changed:
                self.free += pixels
                self.changed.notify_all()


_BUDGET = _Budget(MAX_PIXELS)


def _decode(file: Path | bytes, shape: Shape) -> np.ndarray:
    with open_image(file) as image, _BUDGET.take(image.width * image.height):
        try:
            image.load()
            return fit(ImageOps.exif_transpose(image), shape)
        except BadImageError:
            raise
        except Exception as error:  # Pillow raises exceptions of any type for damaged files.
            raise BadImageError(_reason(error)) from error


def fit(image: Image.Image, shape: Shape) -> np.ndarray:
    """Convert an opened image to uint8 [size, size, channels].

    Raises:
        BadImageError: The crop exceeds the image, or pixels are NaN or infinite.
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
    """Convert pixels, uint8 [H, W] or [H, W, 1 or 3], to uint8 [size, size, channels].

    Raises:
        BadImageError: The pixels have another type or shape, or there are none.
    """
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise BadImageError(f"{pixels.dtype} {list(pixels.shape)}: need uint8 [H, W, 1 or 3]")
    if not pixels.size:
        raise BadImageError(f"{list(pixels.shape)}: no pixels")
    return fit(Image.fromarray(pixels), shape)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Convert grey to 8 bits. 16-bit values keep their upper byte.

    32-bit integers are treated as 16-bit values, and floats as values in [0, 1].

    Raises:
        BadImageError: A float is NaN or infinite.
    """
    values = np.asarray(image)
    if image.mode == "F":
        if not np.isfinite(values).all():
            raise BadImageError("pixels that are NaN or infinite")
        return Image.fromarray((np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8))
    return Image.fromarray((np.clip(values, 0, 65535) >> 8).astype(np.uint8))


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
