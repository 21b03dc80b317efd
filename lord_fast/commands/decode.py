"""lord-fast decode."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from lord_fast.console import err
from lord_fast.errors import naming


def decode(
    run: Positional[Path],
    codes: Positional[Path],
    content: list[str] | None = None,
    class_: Annotated[list[str] | None, arg(name="class")] = None,
    out: Path = Path("decoded.png"),
    overwrite: bool = False,
) -> None:
    """Turn a file of codes into a picture.

    By default every content is decoded with its own class.

    With --content or --class, the picture shows all combinations.

    Examples:
        lord-fast decode runs/photos codes.npz
        lord-fast decode runs/photos new-person.npz --content 17 bob/3.png

    Args:
        run: The run's folder, or an exported model.
        codes: An npz file of encode, fit, sample, translate or interpolate.
        content: Names or numbers of codes in the file that give the columns their content, or
            images of the store by their names. Defaults to all codes of the file.
        class_: Names or numbers of codes in the file that give the rows their class, or names of
            classes. Defaults to all class codes of the file.
        out: The picture to write, a .png or .jpg file.
        overwrite: Replace an existing file.
    """
    from lord_fast.apply import decode_files
    from lord_fast.apply.process import open_model

    with naming(out):
        rows, columns = decode_files(
            open_model(run), codes, out, content or (), class_ or (), overwrite
        )
    shown = f"{rows} classes x {columns} contents" if content or class_ else f"{columns} images"
    err.print(f"{out}: {shown}")
