"""lord-fast interpolate."""

from pathlib import Path

import torch
from rich.console import Console

from lord_fast.data.image_files import list_images, read_images
from lord_fast.grid import save_png, tile
from lord_fast.lord import Lord


def run(run_path: Path, first: Path, second: Path, out: Path, steps: int) -> None:
    """Write a grid: content goes from one image to the other across, class down."""
    if steps < 2:
        raise ValueError(f"--steps {steps}: must be 2 or more")
    lord = Lord.load(run_path, stage="encoders")
    files = list_images([first, second])
    if len(files) != 2:
        raise ValueError(f"{first} {second}: name two images, not folders of several")
    images = read_images(files, lord.shape)
    content, class_ = lord.encode(images)
    contents = lord.interpolate(content[0], content[1], steps)
    classes = lord.interpolate(class_[0], class_[1], steps)
    made = lord.decode(contents.repeat(steps, 1), classes.repeat_interleave(steps, 0)).cpu()
    rows = [list(row) for row in torch.stack(made.split(steps))]
    save_png(out, tile(rows, sources=False))
    Console(stderr=True, soft_wrap=True).print(
        f"{out}: content from {first.name} to {second.name} across, class down"
    )
