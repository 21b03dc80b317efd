"""Translates, interpolates and samples, and writes pictures or codes."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lord_fast.apply.codes import combine
from lord_fast.apply.out import check_out, combinations, write
from lord_fast.data.pairs import true_images
from lord_fast.data.store import read_image
from lord_fast.grid import draw, in_rows, save_png, tile, to_pixels
from lord_fast.lord import Lord
from lord_fast.lord.sources import Source, joint_stage
from lord_fast.model.density import Kind
from lord_fast.progress import Progress, silent
from lord_fast.run.codes import Codes


def translate_files(
    lord: Lord,
    content: Sequence[Path | str],
    class_: Sequence[Path | str],
    out: Path,
    singles: Path | None = None,
    overwrite: bool = False,
) -> tuple[int, int]:
    """Combine the class of each row with the content of each column.

    If the contents and the classes are those of the store, the true images are drawn below.

    Args:
        lord: A model. Images that are not in its store need stage 2.
        content: What gives the columns their content, see `lord_fast.lord.sources.Finder.find`.
        class_: What gives the rows their class.
        out: The file to write. An npz file gets the codes of all combinations.
        singles: A new folder for the translated images as single files.
        overwrite: Whether to replace existing files.

    Returns:
        The number of rows and the number of columns.

    Raises:
        ValueError: An image cannot be read or needs stage 2, nothing has a given name, or a file
            exists.
    """
    check_out(out, overwrite)
    if singles is not None and not overwrite and singles.exists() and any(singles.iterdir()):
        raise ValueError(f"--singles {singles}: has files already; give another, or --overwrite")
    columns = lord.find(_each(content), "content")
    rows = lord.find(_each(class_), "class")
    made = combine(lord, columns, rows)
    true = _true(lord, columns, rows)
    write(out, _codes(columns, rows), lambda: combinations(columns, rows, made, true))
    if singles is not None:
        for i, (row, images) in enumerate(zip(rows, made, strict=True)):
            for j, (column, image) in enumerate(zip(columns, images, strict=True)):
                name = f"{i:03d}-{_plain(row.name)}--{j:03d}-{_plain(column.name)}.png"
                save_png(singles / name, to_pixels(image))
    return len(rows), len(columns)


def interpolate_files(
    lord: Lord,
    first: Path | str,
    second: Path | str,
    out: Path,
    steps: int = 8,
    overwrite: bool = False,
) -> None:
    """Write images that interpolate between two images.

    The content changes from left to right and the class from top to bottom.

    Args:
        lord: A model. Images that are not in its store need stage 2.
        first: The image at the upper left, see `lord_fast.lord.sources.Finder.find`.
        second: The image at the lower right.
        out: The file to write. An npz file gets the codes of all images, row by row.
        steps: Number of rows and of columns, at least 2.
        overwrite: Whether to replace an existing file.

    Raises:
        ValueError: One of them is not one image, it needs stage 2, or `out` exists.
    """
    check_out(out, overwrite)
    ends = [
        [lord.find(str(word), kind) for word in (first, second)] for kind in ("content", "class")
    ]
    if any(len(found) != 1 for pair in ends for found in pair):
        raise ValueError(f"{first} {second}: name two images, not folders of several")
    (content, other_content), (class_, other_class) = ([f[0] for f in pair] for pair in ends)
    contents = lord.interpolate(content.code, other_content.code, steps)
    classes = lord.interpolate(class_.code, other_class.code, steps)
    both = contents.repeat(steps, 1), classes.repeat_interleave(steps, 0)
    stage = joint_stage([content, other_content, class_, other_class])

    def picture() -> np.ndarray:
        middle = lord.decode(*both, stage).cpu().split(steps)
        rows = [[None, *row, None] for row in middle]
        rows[0][0], rows[-1][-1] = content.image, other_content.image
        above = ["", content.name, *[""] * (steps - 2), other_content.name, ""]
        left = [class_.name, *[""] * (steps - 2), other_class.name]
        return draw(rows, above, left, (), (1, steps + 1))

    names = [f"class {i}, content {j}" for i in range(steps) for j in range(steps)]
    write(out, Codes(stage, names, *(part.cpu().numpy() for part in both)), picture)


def sample_grid(
    lord: Lord,
    n: int,
    out: Path,
    new_classes: bool = False,
    density: Kind = "mixture",
    seed: int = 0,
    progress: Progress = silent,
    overwrite: bool = False,
) -> None:
    """Generate new images with `Lord.sample` and write them as a grid.

    Args:
        lord: A trained model.
        n: Number of images.
        out: The file to write. An npz file gets the codes.
        new_classes: Whether to draw new class codes as well.
        density: mixture or training.
        seed: Seed of the random draws.
        progress: Called with the number of tried mixtures and of all mixtures.
        overwrite: Whether to replace an existing file.

    Raises:
        ValueError: New classes are requested from the training density, which has none, or `out`
            exists.
    """
    check_out(out, overwrite)
    if density == "mixture":  # takes longest, and is kept
        lord.density("content", seed, progress)
    content, class_ = lord.sample_codes(n, new_classes, density, seed)

    def picture() -> np.ndarray:
        images = list(lord.decode(content, class_, "latent").cpu())
        return tile(in_rows(images, math.ceil(math.sqrt(n))), sources=False)

    names = [f"sample {i}" for i in range(n)]
    write(out, Codes("latent", names, content.numpy(), class_.numpy()), picture)


def _each(words: Sequence[Path | str]) -> list[Any]:
    if not words:
        raise ValueError("name images, or folders of images")
    return [str(word) for word in words]


def _true(
    lord: Lord, columns: Sequence[Source], rows: Sequence[Source]
) -> list[list[Tensor | None]] | None:
    """Return the true image of each combination, or None if none is known."""
    images, classes = [c.image_id for c in columns], [r.class_id for r in rows]
    store = lord.open_store()
    if store is None or None in images or None in classes:
        return None
    found = true_images(store, torch.tensor(classes), torch.tensor(images)).tolist()
    return [[None if i < 0 else read_image(store, i) for i in row] for row in found]


def _codes(columns: Sequence[Source], rows: Sequence[Source]) -> Codes:
    pairs = [(row, column) for row in rows for column in columns]
    return Codes(
        joint_stage([*columns, *rows]), [f"{row.name}--{column.name}" for row, column in pairs],
        torch.stack([column.code.cpu() for _, column in pairs]).numpy(),
        torch.stack([row.code.cpu() for row, _ in pairs]).numpy(),
    )  # fmt: skip


def _plain(name: str) -> str:
    """Return a name that can be part of a file name."""
    return re.sub(r"[^\w.+-]+", "_", name)
