"""Swap grids, in which all images of a row share a class and all of a column share a content."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lord_fast.atomic import atomic_write

GAP = 2
"""Pixels between tiles. The gap after the sources is three times as wide."""
LABEL_SIZE, LABEL_CHARACTERS = 11, 14
LEAST_TILE = 64
"""Minimum side of a tile of a labelled grid in pixels. Smaller tiles are enlarged to fit labels."""


def tile(rows: Sequence[Sequence[Tensor | None]], sources: bool = True) -> np.ndarray:
    """Lay images out in a grid.

    Args:
        rows: Images [C, H, W] in [0, 1]. None leaves a cell empty.
        sources: Whether the first row and the first column are sources, which are set apart.

    Returns:
        uint8 [height, width, 3].
    """
    _, height, width = next(image for row in rows for image in row if image is not None).shape
    steps, apart = (height + GAP, width + GAP), 2 * GAP * sources
    shape = (len(rows) * steps[0] + GAP + apart, len(rows[0]) * steps[1] + GAP + apart, 3)
    canvas = np.full(shape, 255, dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            if image is not None:
                y, x = i * steps[0] + apart * (i > 0), j * steps[1] + apart * (j > 0)
                canvas[y : y + height, x : x + width] = to_pixels(image)
    return canvas


def label(grid: np.ndarray, size: int, above: Sequence[str], left: Sequence[str]) -> np.ndarray:
    """Write names above the columns and to the left of the rows of a grid with sources.

    Args:
        grid: A grid from `tile`, uint8 [height, width, 3].
        size: Side of its tiles in pixels.
        above: Name of each column after the first.
        left: Name of each row after the first.

    Returns:
        The grid with margins for the names, uint8 [height, width, 3].
    """
    scale = -(-LEAST_TILE // size)
    grid = grid.repeat(scale, 0).repeat(scale, 1)
    font = ImageFont.load_default(LABEL_SIZE)
    top = LABEL_SIZE + 6
    margin = 8 + max(int(font.getlength(_short(name))) for name in left)
    canvas = Image.new("RGB", (grid.shape[1] + margin, grid.shape[0] + top), "white")
    canvas.paste(Image.fromarray(grid), (margin, top))
    draw = ImageDraw.Draw(canvas)
    for i, name in enumerate(above, start=1):
        x = margin + scale * (i * (size + GAP) + 2 * GAP + size // 2)
        draw.text((x, top // 2), _short(name), "black", font, anchor="mm")
    for i, name in enumerate(left, start=1):
        y = top + scale * (i * (size + GAP) + 2 * GAP + size // 2)
        draw.text((margin - 4, y), _short(name), "black", font, anchor="rm")
    return np.asarray(canvas)


def _short(name: str) -> str:
    """The end of a long name, because names of files from one source differ at the end."""
    return name if len(name) <= LABEL_CHARACTERS else "~" + name[1 - LABEL_CHARACTERS :]


def to_pixels(image: Tensor) -> np.ndarray:
    """Convert an image [C, H, W] in [0, 1] with C = 1 or 3 to uint8 [H, W, 3]."""
    image = image.detach().float().clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
    return image.expand(3, -1, -1).permute(1, 2, 0).numpy()


def save_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 [H, W, 3] as a PNG file, atomically."""
    atomic_write(path, lambda stream: Image.fromarray(pixels).save(stream, format="PNG"))
