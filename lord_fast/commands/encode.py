"""lord-fast encode."""

from pathlib import Path

from tyro.conf import Positional

from lord_fast.console import err
from lord_fast.errors import naming


def encode(
    run: Positional[Path], files: Positional[list[Path]], out: Path = Path("codes.npz")
) -> None:
    """Write the codes that the encoders predict for images.

    Examples:
        lord-fast encode runs/photos photos --out codes.npz

    Args:
        run: A run with stage 2.
        files: Images, or folders of images.
        out: The npz file to write. It holds the arrays names [N], content [N, content_dim] and
            class_ [N, class_dim].
    """
    from lord_fast.apply import encode_files
    from lord_fast.lord import Lord

    with naming(out):
        found = encode_files(Lord.load(run, stage="encoders"), files, out)
    err.print(f"{out}: codes of {len(found)} images")
