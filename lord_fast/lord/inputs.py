"""Turns what people have at hand into images for a model: paths, Pillow images and arrays."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from lord_fast.data.decode.contract import Shape
from lord_fast.data.decode.pillow import fit
from lord_fast.data.image_files import list_images, read_images
from lord_fast.data.store import as_float

AnyImages: TypeAlias = "Tensor | np.ndarray | Image.Image | Path | str | Sequence[Any]"
"""One or more images. A path may be that of a folder. A sequence may mix kinds."""


def as_images(images: AnyImages, shape: Shape) -> Tensor:
    """Return images as one batch. All but tensors are cropped and scaled as by `lord-fast pack`.

    Args:
        images: Paths, Pillow images, or arrays [H, W], [N, H, W], [H, W, C] or [N, H, W, C], which
            are uint8 or float in [0, 1]. A tensor [B, C, H, W] is returned unchanged.
        shape: Size, channels and crop of the model's images.

    Returns:
        float [B, channels, size, size] in [0, 1].

    Raises:
        ValueError: A file cannot be read, or an array or object is no image.
    """
    if isinstance(images, Tensor):
        return images
    if isinstance(images, str | Path):
        return read_images(list_images([Path(images)]), shape)
    if isinstance(images, Image.Image):
        return _fitted([ImageOps.exif_transpose(images)], shape)
    if isinstance(images, np.ndarray):
        return _fitted([Image.fromarray(each) for each in _pixels(images)], shape)
    if isinstance(images, Sequence) and images:
        return torch.cat([as_images(each, shape) for each in images])
    raise ValueError(
        f"{type(images).__name__}: not an image; give a path, a Pillow image, an array or a tensor"
    )


def _fitted(pictures: Sequence[Image.Image], shape: Shape) -> Tensor:
    pixels = np.stack([fit(picture, shape) for picture in pictures])
    return as_float(torch.from_numpy(pixels).permute(0, 3, 1, 2))


def _pixels(images: np.ndarray) -> list[np.ndarray]:
    """Return arrays of images as a list of uint8 [H, W] or [H, W, C]."""
    values = images
    if np.issubdtype(values.dtype, np.floating):
        if not values.size or not 0 <= values.min() <= values.max() <= 1:
            raise ValueError("an array of floats must have values in [0, 1]; divide by 255")
        values = (values * 255).round().astype(np.uint8)
    if values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (1, 3, 4)):
        values = values[None]
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    fits = values.ndim in (3, 4) and values.shape[3:] in ((), (3,), (4,))
    if values.dtype != np.uint8 or not values.size or not fits:
        raise ValueError(
            f"an array of {images.dtype} {list(images.shape)}: give uint8 or float [H, W], "
            f"[N, H, W], [H, W, C] or [N, H, W, C] with C = 1, 3 or 4"
        )
    return list(values)
