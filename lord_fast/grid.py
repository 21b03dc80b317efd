"""Swap grids: rows keep their class, columns keep their content."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

GAP = 2
"""Pixels between the tiles, and three times as many after the sources."""


def tile(rows: list[list[Tensor | None]]) -> np.ndarray:
    """Lay images out in a grid; the first row and the first column stand apart as the sources.

    Args:
        rows: Images [C, H, W] in [0, 1]; None leaves a place empty.

    Returns:
        uint8 [height, width, 3].
    """
    _, height, width = next(image for row in rows for image in row if image is not None).shape
    steps = (height + GAP, width + GAP)
    shape = (len(rows) * steps[0] + 3 * GAP, len(rows[0]) * steps[1] + 3 * GAP, 3)
    canvas = np.full(shape, 255, dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            if image is not None:
                y, x = i * steps[0] + 2 * GAP * (i > 0), j * steps[1] + 2 * GAP * (j > 0)
                canvas[y : y + height, x : x + width] = to_pixels(image)
    return canvas


def to_pixels(image: Tensor) -> np.ndarray:
    """[C, H, W] in [0, 1], C 1 or 3 -> uint8 [H, W, 3]."""
    image = image.detach().float().clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
    return image.expand(3, -1, -1).permute(1, 2, 0).numpy()


def save_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 [H, W, 3] so that `path` is never a partial file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    Image.fromarray(pixels).save(partial, format="PNG")
    partial.replace(path)
