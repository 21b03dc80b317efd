"""Writes codes or a picture, as the suffix of the file says."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from lord_fast.atomic import refuse_overwriting
from lord_fast.grid import PICTURES, draw, save_picture, stack, swaps
from lord_fast.lord.sources import CODES, Source
from lord_fast.run.codes import Codes

COLUMNS = 10
"""Number of images in a row, if there are more."""


def check_out(out: Path, overwrite: bool, codes: bool = True) -> None:
    """Check that a file may be written and that its suffix is known. Call this before long work.

    Args:
        out: The file.
        overwrite: Whether an existing file may be replaced.
        codes: Whether codes may be written. Otherwise only a picture can.

    Raises:
        ValueError: The file exists, or the suffix is unknown.
    """
    suffixes = ([CODES] if codes else []) + list(PICTURES)
    if out.suffix.lower() not in suffixes and not _is_device(out):
        what = f"codes ({CODES}) or a picture" if codes else "a picture"
        raise ValueError(
            f"--out {out}: the suffix decides what is written; use {what} ({', '.join(PICTURES)})"
        )
    refuse_overwriting(out, overwrite)


def write(out: Path, codes: Codes | None, picture: Callable[[], np.ndarray]) -> None:
    """Write codes to an npz file, or a picture to any other file.

    Args:
        out: The file.
        codes: The codes, or None if there are none.
        picture: Draws the picture, uint8 [height, width, 3].
    """
    if codes is not None and out.suffix.lower() == CODES:
        codes.save(out)
    else:
        save_picture(out, picture(), "PNG" if _is_device(out) else None)


def strips(rows: Sequence[Sequence[Tensor]], names: Sequence[str], left: list[str]) -> np.ndarray:
    """Draw rows of images below each other, in pieces of at most `COLUMNS` columns.

    Args:
        rows: Images [C, H, W]. All rows have the same length.
        names: Label of each column.
        left: Label of each row.

    Returns:
        uint8 [height, width, 3].
    """
    columns, pictures = min(COLUMNS, len(names)), []
    for start in range(0, len(names), columns):
        part = slice(start, start + columns)
        cells = [[*images[part], *[None] * columns][:columns] for images in rows]
        shown = [*names[part], *[""] * columns][:columns]
        pictures.append(draw(cells, shown, left, (), ()))
    return stack(pictures)


def combinations(
    contents: Sequence[Source],
    classes: Sequence[Source],
    made: Sequence[Sequence[Tensor]],
    true: Sequence[Sequence[Tensor | None]] | None,
) -> np.ndarray:
    """Draw every class with every content, see `lord_fast.grid.swaps`."""
    columns, rows = ([(s.name, s.image) for s in sources] for sources in (contents, classes))
    return swaps(columns, rows, made, true)


def _is_device(out: Path) -> bool:
    """Return whether a path is a pipe or a device such as /dev/stdout."""
    return out.exists() and not out.is_file() and not out.is_dir()
