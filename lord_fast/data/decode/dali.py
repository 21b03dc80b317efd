"""Implements `contract.Decoder` with DALI, on a GPU ("mixed") or on the CPU.

DALI decodes only those JPEG and PNG files for which it gives the same image as Pillow. Pillow
decodes all others one by one. These are images with transparency (DALI drops alpha), 16-bit grey
(DALI takes the lower byte), GIF, TIFF and other formats, and truncated files.

The pixels of the two decoders differ by at most 2 levels of 255, or by 3 for grey from colour. The
outermost ring of pixels of a reduced image can differ more, because the filter reaches over the
border. DALI repeats the border's pixels there, while Pillow ignores the outside. An edge that meets
the border differs by up to an eighth of its contrast.
"""

import importlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from lord_fast.data.decode.contract import BadImageError, Shape
from lord_fast.data.decode.pillow import PillowDecoder, open_image

BATCH = 64
MAX_BATCH_PIXELS = 64_000_000
"""Largest number of pixels in a batch, counted before the images are scaled."""
END_OF_JPEG = b"\xff\xd9"


class DaliUnavailableError(RuntimeError):
    """DALI is missing or does not work on this machine. The message comes from DALI."""


class DaliDecoder:
    """Decodes with DALI, and with Pillow where DALI would give another image.

    Args:
        shape: Size, channels and crop of the decoded images.
        threads: Number of DALI's CPU threads.
        device: cpu or cuda.

    Raises:
        DaliUnavailableError: DALI is missing or does not work on this machine.
    """

    def __init__(self, shape: Shape, threads: int, device: str = "cpu"):
        self.shape, self.threads, self.device = shape, threads, device
        self.pillow = PillowDecoder(shape, threads)
        self._lock = threading.Lock()
        try:
            self._dali: Any = importlib.import_module("nvidia.dali")
            for module in ("fn", "math", "types"):
                importlib.import_module(f"nvidia.dali.{module}")
            self._pipeline = self._build()
        except (ImportError, OSError, RuntimeError) as error:
            raise DaliUnavailableError(str(error)) from error

    def decode(self, files: Sequence[bytes]) -> list[np.ndarray | BadImageError]:
        """See `Decoder`."""
        return self._each(files, lambda images: [np.array(image) for image in images.as_cpu()])

    def batch(self, files: Sequence[bytes]):
        """See `Decoder`. Images that DALI decodes on a GPU stay there."""
        import torch

        def tensors(images: Any) -> Sequence[Any]:
            # The clone is needed because DALI writes the next batch into the same memory.
            return torch.from_dlpack(images.as_tensor()).clone().unbind()

        images = []
        for image in self._each(files, tensors):
            if isinstance(image, BadImageError):
                raise image
            if isinstance(image, np.ndarray):  # Pillow's arrays are read-only.
                image = torch.from_numpy(image.copy()).to(self.device)
            images.append(image)
        return torch.stack(images)

    def describe(self) -> dict[str, str]:
        """Return name, version and device."""
        return {"name": "dali", "version": self._dali.__version__, "device": self.device}

    def _each(self, files: Sequence[bytes], convert: Callable[[Any], Sequence]) -> list[Any]:
        ours: list[int] = []
        pixels: list[int] = []
        for i, file in enumerate(files):
            count = self._pixels_if_alike(file)
            if count:
                ours.append(i)
                pixels.append(count)
        decoded: dict[int, Any] = {}
        with self._lock:
            for group in _groups(ours, pixels):
                decoded |= zip(group, self._run([files[i] for i in group], convert), strict=True)
        others = [i for i in range(len(files)) if decoded.get(i) is None]
        decoded |= zip(others, self.pillow.decode([files[i] for i in others]), strict=True)
        return [decoded[i] for i in range(len(files))]

    def _pixels_if_alike(self, file: bytes) -> int:
        """Return the number of pixels if DALI decodes this image as Pillow does, else 0."""
        try:
            with open_image(file) as image:
                alike = _alike(image, file) and self._crop_fits(image)
                return image.width * image.height if alike else 0
        except BadImageError:
            return 0

    def _crop_fits(self, image: Image.Image) -> bool:
        """Return whether the crop fits the image, both upright and turned by 90 degrees."""
        if self.shape.crop is None:
            return True
        width, height, *offset = self.shape.crop
        left, top = offset or (0, 0)
        return max(left + width, top + height) <= min(image.size)

    def _run(self, files: list[bytes], convert: Callable[[Any], Sequence]) -> list[Any]:
        """Decode files and convert the images. The result is None for files that DALI rejects.

        A single bad image makes its whole batch fail, so a failed batch is repeated in halves.
        """
        try:
            self._pipeline.feed_input("files", [np.frombuffer(f, dtype=np.uint8) for f in files])
            return list(convert(self._pipeline.run()[0]))
        except RuntimeError:
            self._pipeline = self._build()  # A pipeline cannot be used after an error.
        if len(files) == 1:
            return [None]
        half = len(files) // 2
        return self._run(files[:half], convert) + self._run(files[half:], convert)

    def _build(self):
        """Build a pipeline that decodes and rotates images, cuts out `Shape.box` and scales it."""
        dali, fn, types = self._dali, self._dali.fn, self._dali.types
        gpu = self.device == "cuda"

        @dali.pipeline_def(
            batch_size=BATCH, num_threads=self.threads, device_id=0 if gpu else None,
            exec_dynamic=True, prefetch_queue_depth=1,
        )  # fmt: skip
        def pipeline():
            files = fn.external_source(name="files", dtype=types.UINT8, ndim=1)
            images = fn.decoders.image(
                files, device="mixed" if gpu else "cpu", jpeg_fancy_upsampling=True,
                output_type=types.GRAY if self.shape.channels == 1 else types.RGB,
            )  # fmt: skip
            start, end = self._region(images.shape(dtype=types.FLOAT))
            return fn.resize(
                images, size=(self.shape.size, self.shape.size), roi_start=start, roi_end=end,
                interp_type=types.INTERP_TRIANGULAR, antialias=True,
            )  # fmt: skip

        built = pipeline()
        built.build()
        return built

    def _region(self, shape):
        """Compute `Shape.box` with DALI operators. Returns (top, left) and (bottom, right)."""
        fn, math = self._dali.fn, self._dali.math
        height, width = shape[0], shape[1]
        if self.shape.crop is None:
            side = math.min(height, width)
            top, left = (height - side) / 2, (width - side) / 2
        else:
            region = self.shape.crop[:2]
            side = float(min(region))
            left, top = math.floor((width - region[0]) / 2), math.floor((height - region[1]) / 2)
            if len(self.shape.crop) == 4:
                left, top = (0 * width + offset for offset in self.shape.crop[2:])
            left, top = left + (region[0] - side) / 2, top + (region[1] - side) / 2
        return fn.stack(top, left), fn.stack(top + side, left + side)


def _alike(image: Image.Image, file: bytes) -> bool:
    """Return whether DALI decodes an image as Pillow does. tests/test_dali.py compares them."""
    if image.format == "JPEG":
        return image.mode in ("L", "RGB", "CMYK") and file.endswith(END_OF_JPEG)
    return (
        image.format == "PNG"
        and image.mode in ("1", "L", "RGB", "P")
        and not image.has_transparency_data
    )


def _groups(items: list[int], pixels: list[int]) -> list[list[int]]:
    """Split `items` into groups of at most `BATCH` images and `MAX_BATCH_PIXELS` pixels.

    An image with more pixels forms its own group.
    """
    groups: list[list[int]] = []
    total = 0
    for item, count in zip(items, pixels, strict=True):
        if not groups or len(groups[-1]) == BATCH or total + count > MAX_BATCH_PIXELS:
            groups.append([])
            total = 0
        groups[-1].append(item)
        total += count
    return groups
