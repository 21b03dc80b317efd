"""Grids of images, in which all of a row or of a column have something in common."""

import functools
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lord_fast.atomic import atomic_write

GAP = 2
"""Pixels between tiles. A gap that sets rows or columns apart is three times as wide."""
LEAST_TILE = 64
"""Minimum side of a tile of a labelled grid in pixels. Smaller tiles are enlarged."""
TEXT = 12
"""Size of the labels in pixels."""
MOST_TEXT = 220
"""Longest label in pixels. A longer one is cut in the middle."""
PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""Suffix of a picture file -> Pillow's name of the format."""
Rows = Sequence[Sequence[Tensor | None]]
"""Images [C, H, W] in [0, 1] by row and column. None leaves a cell empty."""
Labelled = tuple[str, Tensor | None]
"""A label and an image [C, H, W] in [0, 1]."""


def tile(rows: Rows, sources: bool = True) -> np.ndarray:
    """Lay images out in a grid.

    Args:
        rows: The images.
        sources: Whether the first row and the first column are sources, which are set apart.

    Returns:
        uint8 [height, width, 3].
    """
    apart = {1} if sources else set()
    return np.asarray(_lay_out(rows, 1, apart, apart))


def draw(
    rows: Rows,
    above: Sequence[str],
    left: Sequence[str],
    row_breaks: Collection[int] = (1,),
    column_breaks: Collection[int] = (1,),
) -> np.ndarray:
    """Lay images out in a grid with labels.

    Labels above the columns are turned by 90 degrees if one is wider than its column.

    Args:
        rows: The images.
        above: Label of each column, which may be empty.
        left: Label of each row, which may be empty.
        row_breaks: Rows that are set apart from the row above.
        column_breaks: Columns that are set apart from the column at their left.

    Returns:
        uint8 [height, width, 3].
    """
    side = _size(rows)[0]
    scale = -(-LEAST_TILE // side)
    grid = _lay_out(rows, scale, row_breaks, column_breaks)
    turned = max(map(_length, above), default=0) > side * scale
    tops = [_text(name, turned) for name in above]
    sides = [_text(name, False) for name in left]
    top = max(image.height for image in tops) + 2 * GAP
    margin = max(image.width for image in sides) + 2 * GAP
    canvas = Image.new("RGB", (grid.width + margin, grid.height + top), "white")
    canvas.paste(grid, (margin, top))
    height, width = (scale * pixels for pixels in _size(rows))
    for x, text in zip(_offsets(len(above), width, column_breaks), tops, strict=True):
        canvas.paste(text, (margin + x + (width - text.width) // 2, top - GAP - text.height))
    for y, text in zip(_offsets(len(left), height, row_breaks), sides, strict=True):
        canvas.paste(text, (margin - GAP - text.width, top + y + (height - text.height) // 2))
    return np.asarray(canvas)


def swaps(
    contents: Sequence[Labelled],
    classes: Sequence[Labelled],
    made: Rows,
    true: Rows | None = None,
) -> np.ndarray:
    """Draw every class with every content, with the sources above and at the left.

    Args:
        contents: Label and source of each column.
        classes: Label and source of each row.
        made: The images, [classes][contents].
        true: The true image of each combination, which is drawn below. None if none is known.

    Returns:
        uint8 [height, width, 3].
    """
    rows: list[Sequence[Tensor | None]] = [[None, *(image for _, image in contents)]]
    labels, breaks = [""], [1]
    for i, (name, source) in enumerate(classes):
        rows.append([source, *made[i]])
        labels.append(name)
        if true is not None and any(image is not None for image in true[i]):
            rows.append([None, *true[i]])
            labels.append("true")
            breaks.append(len(rows))
    return draw(rows, ["", *(name for name, _ in contents)], labels, breaks, (1,))


def stack(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Put pictures, uint8 [height, width, 3], below each other, aligned at the right."""
    gap = 4 * GAP
    width = max(picture.shape[1] for picture in pictures)
    height = sum(picture.shape[0] + gap for picture in pictures) - gap
    canvas, y = Image.new("RGB", (width, height), "white"), 0
    for picture in pictures:
        canvas.paste(Image.fromarray(picture), (width - picture.shape[1], y))
        y += picture.shape[0] + gap
    return np.asarray(canvas)


def in_rows(images: Sequence[Tensor], columns: int) -> Rows:
    """Split images into rows, and fill the last row with empty cells."""
    padded = [*images, *[None] * (-len(images) % columns)]
    return [padded[i : i + columns] for i in range(0, len(images), columns)]


def to_pixels(image: Tensor) -> np.ndarray:
    """Convert an image [C, H, W] in [0, 1] with C = 1 or 3 to uint8 [H, W, 3]."""
    import torch

    image = image.detach().float().clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
    return image.expand(3, -1, -1).permute(1, 2, 0).numpy()


def save_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 [H, W, 3] as a PNG file, atomically."""
    save_picture(path, pixels, "PNG")


def save_picture(path: Path, pixels: np.ndarray, form: str | None = None) -> None:
    """Write uint8 [H, W, 3] as a picture, atomically.

    Args:
        path: The file.
        pixels: The picture.
        form: Pillow's name of the format. Defaults to that of the suffix.

    Raises:
        ValueError: The suffix is not that of a picture.
    """
    form = form or picture_format(path)
    picture = Image.fromarray(pixels)
    atomic_write(path, lambda stream: picture.save(stream, format=form, quality=95))


def picture_format(path: Path) -> str:
    """Return Pillow's name of the format of a picture file.

    Raises:
        ValueError: The suffix is not that of a picture.
    """
    form = PICTURES.get(path.suffix.lower())
    if form is None:
        raise ValueError(f"{path}: not the name of a picture; use one of {', '.join(PICTURES)}")
    return form


def _lay_out(
    rows: Rows, scale: int, row_breaks: Collection[int], column_breaks: Collection[int]
) -> Image.Image:
    height, width = (scale * pixels for pixels in _size(rows))
    tops = _offsets(len(rows), height, row_breaks)
    lefts = _offsets(len(rows[0]), width, column_breaks)
    canvas = Image.new("RGB", (lefts[-1] + width + GAP, tops[-1] + height + GAP), "white")
    for y, row in zip(tops, rows, strict=True):
        for x, image in zip(lefts, row, strict=True):
            if image is not None:
                picture = Image.fromarray(to_pixels(image))
                canvas.paste(picture.resize((width, height), Image.Resampling.NEAREST), (x, y))
    return canvas


def _size(rows: Rows) -> tuple[int, int]:
    """Return the height and the width of the tiles in pixels."""
    shape = next(image for row in rows for image in row if image is not None).shape
    return shape[1], shape[2]


def _offsets(count: int, side: int, breaks: Collection[int]) -> list[int]:
    """Return where each tile starts, in pixels."""
    found, at = [], 0
    for i in range(count):
        at += 2 * GAP * (i in breaks)
        found.append(at)
        at += side + GAP
    return found


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib ships, because Pillow's own font has few alphabets."""
    import matplotlib

    file = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(str(file), TEXT)


def _length(text: str) -> float:
    return _font().getlength(text)


def _text(text: str, turned: bool) -> Image.Image:
    """Draw a label in black on white."""
    text = _shortened(" ".join(text.split()))
    size = (max(1, int(_length(text)) + 2), TEXT + 4)
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).text((1, size[1] // 2), text, "black", _font(), anchor="lm")
    return image.transpose(Image.Transpose.ROTATE_90) if turned else image


def _shortened(text: str) -> str:
    """Replace the middle of a text that is longer than `MOST_TEXT` by dots."""
    kept = len(text)
    while _length(text) > MOST_TEXT:
        kept -= 1
        text = f"{text[: kept // 2]}…{text[len(text) - kept // 2 :]}"
    return text
