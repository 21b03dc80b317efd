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
    """Go from one image to another: content across, class down.

    Examples:
        lord-fast interpolate runs/photos a.png b.png --out between.png

    Args:
        run: A run with stage 2.
        first: The image at the upper left.
        second: The image at the lower right.
        out: The grid to write, a PNG.
        steps: Images in a row and in a column.
    """
    from lord_fast.apply import interpolate_files
    from lord_fast.lord import Lord

    with naming(out):
        interpolate_files(Lord.load(run, stage="encoders"), first, second, out, steps)
    err.print(f"{out}: content from {first.name} to {second.name} across, class down")
