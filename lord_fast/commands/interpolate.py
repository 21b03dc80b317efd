"""lord-fast interpolate."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from lord_fast.bounds import AtLeast, Below
from lord_fast.console import err
from lord_fast.errors import naming


def interpolate(
    run: Positional[Path],
    first: Positional[str],
    second: Positional[str],
    out: Path = Path("interpolated.png"),
    steps: Annotated[int, AtLeast(2), Below(1001)] = 8,
    overwrite: bool = False,
) -> None:
    """Write a grid of images that interpolate between two images.

    The content changes from left to right and the class from top to bottom.

    An image file needs stage 2. An image of the store goes by name or number.

    Examples:
        lord-fast interpolate runs/photos a.png b.png --out between.png
        lord-fast interpolate runs/photos alice/1.png bob/3.png

    Args:
        run: The run's folder, or an exported model.
        first: The image at the upper left.
        second: The image at the lower right.
        out: The file to write, a .png or .jpg picture or an npz file of codes.
        steps: Number of images in a row and in a column.
        overwrite: Replace an existing file.
    """
    from lord_fast.apply import interpolate_files
    from lord_fast.apply.process import open_model

    with naming(out):
        interpolate_files(open_model(run), first, second, out, steps, overwrite)
    err.print(
        f"{out}: from {first} to {second}. The content changes from left to right and "
        f"the class from top to bottom"
    )
