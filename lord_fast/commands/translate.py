"""lord-fast translate."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from lord_fast.console import err
from lord_fast.errors import naming


def translate(
    run: Positional[Path],
    content: list[Path],
    class_: Annotated[list[Path], arg(name="class")],
    out: Path = Path("grid.png"),
    singles: Path | None = None,
) -> None:
    """Combine the content of some images with the class of others.

    Examples:
        lord-fast translate runs/photos --content poses --class people --out grid.png

    Args:
        run: A run with stage 2.
        content: Images, or folders of images, that give the columns their content.
        class_: Images, or folders of images, that give the rows their class.
        out: The PNG file to write. It shows all combinations as a grid.
        singles: A folder to which every translated image is also written as a file.
    """
    from lord_fast.apply import translate_files
    from lord_fast.lord import Lord

    with naming(out):
        rows, columns = translate_files(
            Lord.load(run, stage="encoders"), content, class_, out, singles
        )
    err.print(f"{out}: {rows} classes x {columns} contents")
    if singles is not None:
        err.print(f"{singles}: {rows * columns} images, named CLASS--CONTENT.png")
