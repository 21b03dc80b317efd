"""Images that show and save themselves."""

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lord_fast.grid import in_rows, save_picture, tile, to_pixels

LONGEST_ROW = 8
"""Largest number of images that are shown in one row. More are shown in a square."""


class Images(Tensor):
    """Images, float32 [B, C, H, W] or [C, H, W] in [0, 1], that show and save themselves.

    A notebook shows them as a picture. They are a tensor. The result of arithmetic is a plain
    tensor, and a part such as `images[0]` shows itself again.
    """

    # The results of functions are plain tensors.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def of(images: Tensor) -> "Images":
        """Return a tensor of images as such, without a copy."""
        return images.as_subclass(Images)

    def __getitem__(self, index: Any) -> "Images":
        """Return a part of the images."""
        return Images.of(super().__getitem__(index))

    def __iter__(self) -> Iterator["Images"]:
        """Yield each image."""
        return (Images.of(image) for image in self.unbind(0))

    def __deepcopy__(self, memo: dict) -> "Images":
        """Return a copy of the pixels."""
        return Images.of(self.detach().clone())

    def __reduce_ex__(self, protocol):
        """Pickle as a plain tensor, so that torch.load reads it everywhere."""
        return self.as_subclass(Tensor).__reduce_ex__(protocol)

    def pixels(self) -> np.ndarray:
        """Return one picture of all images, uint8 [height, width, 3].

        Raises:
            ValueError: This is a part of the images that is no image.
        """
        if not self.is_image():
            raise ValueError(f"shape {list(self.shape)}: not images [B, C, H, W] or [C, H, W]")
        if self.ndim == 3 or len(self) == 1:
            return to_pixels(self.reshape(self.shape[-3:]))
        count = len(self)
        columns = count if count <= LONGEST_ROW else math.ceil(math.sqrt(count))
        return tile(in_rows(list(self), columns), sources=False)

    def is_image(self) -> bool:
        """Return whether these are one or more whole images."""
        return self.ndim in (3, 4) and self.shape[-3] in (1, 3) and self.numel() > 0

    def pil(self) -> list[Image.Image]:
        """Return each image as a Pillow image, grey or RGB."""
        grey = self.shape[-3] == 1
        pictures = [to_pixels(image) for image in self.reshape(-1, *self.shape[-3:])]
        return [Image.fromarray(picture[:, :, 0] if grey else picture) for picture in pictures]

    def save(self, path: Path | str) -> None:
        """Write one picture of all images. The suffix decides the format.

        Args:
            path: A .png, .jpg or .webp file. An existing file is replaced.

        Raises:
            ValueError: The suffix is not that of a picture.
        """
        save_picture(Path(path), self.pixels())

    def show(self) -> None:
        """Open the picture in the image viewer of this machine."""
        Image.fromarray(self.pixels()).show()

    def _repr_png_(self) -> bytes | None:
        """Return the picture as PNG for a notebook, or None if this is no image."""
        if not self.is_image():
            return None
        stream = io.BytesIO()
        Image.fromarray(self.pixels()).save(stream, format="PNG")
        return stream.getvalue()
