"""lord-fast interpolate."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from lord_fast.bounds import AtLeast, Below
from lord_fast.console import err
from lord_fast.errors import naming


def interpolate(
    run: Positional[Path],
    first: Positional[Path],
    second: Positional[Path],
    out: Path = Path("grid.png"),
    steps: Annotated[int, AtLeast(2), Below(1001)] = 8,
) -> None:
    """Write a grid of images that interpolate between two images.

    The content changes from left to right and the class from top to bottom.

    Examples:
        lord-fast interpolate runs/photos a.png b.png --out between.png

    Args:
        run: A run with stage 2.
        first: The image at the upper left.
        second: The image at the lower right.
        out: The PNG file to write.
        steps: Number of images in a row and in a column.
    """
    from lord_fast.apply import interpolate_files
    from lord_fast.lord import Lord

    with naming(out):
        interpolate_files(Lord.load(run, stage="encoders"), first, second, out, steps)
    err.print(
        f"{out}: from {first.name} to {second.name}. The content changes from left to right and "
        f"the class from top to bottom"
    )
