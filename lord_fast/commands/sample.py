"""lord-fast sample."""

import math
from pathlib import Path

from rich.console import Console

from lord_fast.grid import save_png, tile
from lord_fast.lord import Lord
from lord_fast.model.density import Kind


def run(run_path: Path, n: int, out: Path, new_classes: bool, density: Kind, seed: int) -> None:
    """Write a grid of new images."""
    if n < 1:
        raise ValueError(f"-n {n}: must be positive")
    lord = Lord.load(run_path, stage="latent")
    images = list(lord.sample(n, new_classes, density, seed).cpu())
    columns = math.ceil(math.sqrt(n))
    padded = [*images, *[None] * (-n % columns)]
    save_png(out, tile([padded[i : i + columns] for i in range(0, n, columns)], sources=False))
    console = Console(stderr=True, soft_wrap=True)
    if density == "mixture":
        console.print(f"contents: {lord.density('content', seed).describe()}")
    classes = "new classes" if new_classes else "classes of training"
    console.print(f"{out}: {n} images of {classes}")
