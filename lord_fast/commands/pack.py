"""lord-fast pack."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources import open_source
from lord_fast.data.verify import verify
from lord_fast.errors import Interrupted


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} images/s")


def run(source: str, store: Path, config: PackConfig) -> None:
    """Pack a source; print what the store holds and what was left out."""
    console = Console(stderr=True, soft_wrap=True)
    records = open_source(source, config)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("images"), _Speed())
    with _progress(console, *columns) as progress, _sigterm(store):
        task = progress.add_task("pack", total=len(records))
        steps: list[int] = []
        start = time.perf_counter()

        def advance(count: int) -> None:
            steps.append(count)
            progress.advance(task, count)

        manifest = pack(records, store, config, advance)
    # The first step is what an earlier packing had done.
    speed = sum(steps[1:]) / (time.perf_counter() - start)
    _print_left_out(console, store)
    counts = np.bincount(np.load(store / "class_ids.npy"))
    factors = ", ".join(f"{name} ({len(v)})" for name, v in manifest["factors"].items()) or "none"
    console.print(
        f"{store}: {manifest['num_images']} images of {len(counts)} classes "
        f"({counts.min()}-{counts.max()} each), {manifest['size']} x {manifest['size']}, "
        f"{'grey' if manifest['channels'] == 1 else 'RGB'}, {manifest['storage']} by "
        f"{manifest['decoder']['name']}; content factors: {factors}; {speed:,.0f} images/s"
    )
    if counts.min() < 2 or len(counts) < 2:
        console.print(
            "note: train needs two or more classes, each of two or more images; "
            "--min-class-size 2 leaves the others out"
        )


def run_verify(store: Path) -> None:
    """Check a store against its hashes and its source.

    Raises:
        ValueError: names what is damaged or has changed.
    """
    console = Console(stderr=True, soft_wrap=True)
    with _progress(console, BarColumn(), MofNCompleteColumn(), _Speed()) as progress:
        task = progress.add_task("verify", total=None)
        checked = verify(store, lambda n, total: progress.update(task, completed=n, total=total))
    console.print(f"{store}: {checked}")


def _print_left_out(console: Console, store: Path) -> None:
    rows = [json.loads(line) for line in (store / "left_out.jsonl").read_text().splitlines()]
    if rows:
        console.print(f"left out {len(rows)} images ({store / 'left_out.jsonl'}):")
        for row in rows:
            console.print(f"  {row['name']}: {row['reason']}", highlight=False, markup=False)


def _progress(console: Console, *columns: ProgressColumn) -> Progress:
    return Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )


@contextmanager
def _sigterm(store: Path) -> Iterator[None]:
    """Let SIGTERM end a packing as Ctrl-C does: what is done stays, to go on with."""

    def handle(signum: int, frame) -> None:
        raise Interrupted(signum, f"while packing {store}")

    previous = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
