"""lord-fast encode."""

from pathlib import Path

from rich.console import Console

from lord_fast.files import list_images, read_images, save_codes
from lord_fast.lord import Lord


def run(run_path: Path, paths: list[Path], out: Path) -> None:
    """Write the codes of images by the encoders of stage 2."""
    lord = Lord.load(run_path, codes="encoder")
    files = list_images(paths)
    content, class_ = lord.encode(read_images(files, lord))
    save_codes(out, lord, files, content, class_)
    Console(stderr=True, soft_wrap=True).print(f"{out}: codes of {len(files)} images")
