"""lord-fast translate."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from lord_fast.console import err
from lord_fast.errors import naming


def translate(
    run: Positional[Path],
    content: list[str],
    class_: Annotated[list[str], arg(name="class")],
    out: Path = Path("translated.png"),
    singles: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Combine the content of some images with the class of others.

    An image file needs stage 2. An image of the store goes by name or number.

    FILE.npz stands for all codes of a file, and FILE.npz:NAME for one of them.

    Examples:
        lord-fast translate runs/photos --content poses --class people --out grid.png
        lord-fast translate runs/photos --content 17 bob/3.png --class alice bob

    Args:
        run: The run's folder, or an exported model.
        content: Images that give the columns their content.
        class_: Images or names of classes that give the rows their class.
        out: The file to write. A .png or .jpg file shows all combinations, and the true images
            where the store has them. An npz file holds the codes of all combinations.
        singles: A folder to which every translated image is also written as a file.
        overwrite: Replace existing files.
    """
    from lord_fast.apply import translate_files
    from lord_fast.apply.process import open_model

    with naming(out):
        rows, columns = translate_files(open_model(run), content, class_, out, singles, overwrite)
    err.print(f"{out}: {rows} classes x {columns} contents")
    if singles is not None:
        err.print(f"{singles}: {rows * columns} images, named CLASS--CONTENT.png")
