"""lord-fast encode."""

from pathlib import Path

from tyro.conf import Positional

from lord_fast.console import err
from lord_fast.errors import naming


def encode(
    run: Positional[Path],
    files: Positional[list[Path]],
    out: Path = Path("codes.npz"),
    overwrite: bool = False,
) -> None:
    """Write the codes that the encoders predict for images.

    Examples:
        lord-fast encode runs/photos photos --out codes.npz
        lord-fast encode runs/photos photos --out codes.png

    Args:
        run: A run with stage 2, or an exported model.
        files: Images, or folders of images.
        out: The file to write. An npz file holds the arrays names [N], content [N, content_dim],
            class_ [N, class_dim] and stage. A .png or .jpg file shows the images above their
            reconstructions.
        overwrite: Replace an existing file.
    """
    from lord_fast.apply import encode_files
    from lord_fast.apply.process import open_model

    with naming(out):
        found = encode_files(open_model(run, "encoders"), files, out, overwrite)
    err.print(f"{out}: codes of {len(found)} images")
