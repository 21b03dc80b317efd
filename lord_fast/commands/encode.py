"""lord-fast encode."""

from pathlib import Path

import torch
from rich.console import Console

from lord_fast.data.image_files import list_images, read_batches
from lord_fast.lord import Lord
from lord_fast.run.codes import save_codes


def run(run_path: Path, paths: list[Path], out: Path) -> None:
    """Write the codes of images by the encoders of stage 2."""
    lord = Lord.load(run_path, stage="encoders")
    files = list_images(paths)
    pairs = [
        [part.cpu() for part in lord.encode(images)] for images in read_batches(files, lord.shape)
    ]
    content, class_ = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    save_codes(out, "encoders", files, content.numpy(), class_.numpy())
    Console(stderr=True, soft_wrap=True).print(f"{out}: codes of {len(files)} images")
