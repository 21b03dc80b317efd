"""lord-fast pack."""

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lord_fast.config import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources import open_source


def run(source: str, store: Path, config: PackConfig) -> None:
    """Pack a source and print what the store holds."""
    console = Console(stderr=True, soft_wrap=True)
    records = open_source(source, config)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("images"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("pack", total=len(records))
        manifest = pack(records, store, config, lambda n: progress.advance(task, n))
    counts = np.bincount(np.load(store / "class_ids.npy"))
    factors = ", ".join(f"{name} ({len(v)})" for name, v in manifest["factors"].items()) or "none"
    console.print(
        f"{store}: {manifest['num_images']} images of {len(counts)} classes "
        f"({counts.min()}-{counts.max()} each), {manifest['size']} x {manifest['size']}, "
        f"{'grey' if manifest['channels'] == 1 else 'RGB'}; content factors: {factors}"
    )
    if counts.min() < 2 or len(counts) < 2:
        console.print(
            "note: train needs two or more classes, each of two or more images; "
            "--min-class-size 2 leaves the others out"
        )
