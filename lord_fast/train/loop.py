"""What both stages share: steps, logging, grids, checkpoints, signals, resuming."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from lord_fast.config import LoggingConfig
from lord_fast.errors import Interrupted
from lord_fast.grid import save_png
from lord_fast.run import checkpoint
from lord_fast.run.stats import append_stats, forget_after
from lord_fast.train.stage import Stage


def run_stage(stage: Stage, run: Path, console: Console) -> None:
    """Run a stage from its last checkpoint, or from its start, to its end.

    Args:
        stage: What to run; its state is restored and advanced.
        run: The run's folder.
        console: Where progress goes.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; a checkpoint of the last step was written first.
        ValueError: the loss is no longer finite, or the checkpoint is damaged.
    """
    checkpoints = run / "checkpoints"
    config = stage.config.logging
    start = _resume(stage, checkpoints, console)
    log = _Log(stage, run, start, config, console)
    with _signals() as caught, log:
        for step in range(start, stage.total_steps):
            scalars = stage.step(step)
            done = step + 1
            last = done == stage.total_steps

            log.add(done, scalars)
            if done % config.log_every == 0 or last:
                log.write(done)
            if done % config.grid_every == 0 or last:
                save_png(run / "grids" / f"{stage.name}-{done:09d}.png", stage.grid(done))
            if done % config.save_every == 0 or last or caught:
                checkpoint.save(checkpoints, stage.name, done, stage.state())
            if caught and not last:
                raise Interrupted(caught[0], done)


def _resume(stage: Stage, checkpoints: Path, console: Console) -> int:
    found = checkpoint.latest(checkpoints, stage.name)
    if found is None:
        return 0
    step, state = checkpoint.load(found)
    stage.load_state(state)
    if step < stage.total_steps:
        console.print(f"resuming from {found}")
    return step


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying; a second Ctrl-C ends at once."""
    caught: list[int] = []

    def handle(signum: int, frame) -> None:
        if caught and signum == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(signum)

    previous = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


class _Log:
    """Progress on the console, stats.jsonl, TensorBoard if asked for."""

    def __init__(
        self, stage: Stage, run: Path, start: int, config: LoggingConfig, console: Console
    ):
        self.stage, self.console = stage, console
        self.file = run / "stats.jsonl"
        forget_after(self.file, stage.name, start)
        self.writer = _tensorboard(run / "tensorboard") if config.tensorboard else None
        self.sums: dict[str, Tensor] = {}
        self.count, self.since = 0, time.perf_counter()
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self.task = self.progress.add_task(
            stage.name, total=stage.total_steps, completed=start, note=""
        )

    def __enter__(self) -> None:
        self.progress.start()

    def __exit__(self, *error) -> None:
        self.progress.stop()
        if self.writer:
            self.writer.close()

    def add(self, done: int, scalars: dict[str, Tensor]) -> None:
        for name, value in scalars.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()
        self.count += 1
        self.progress.update(self.task, completed=done)

    def write(self, done: int) -> None:
        """One line: the means over the steps since the last one."""
        means = {name: float(total) / self.count for name, total in self.sums.items()}
        if not math.isfinite(means["loss"]):
            raise ValueError(
                f"the loss is {means['loss']} after step {done}; train in a new run with a "
                f"smaller --lr, or with --precision float32"
            )
        elapsed = time.perf_counter() - self.since
        row = {
            "stage": self.stage.name,
            "step": done,
            "epoch": done / self.stage.steps_per_epoch,
            **means,
            "lr": self.stage.learning_rate(done - 1),
            "images_per_second": self.count * self.stage.batch_size / elapsed,
        }
        append_stats(self.file, row)
        if self.writer:
            for name in (*means, "lr", "images_per_second"):
                self.writer.add_scalar(f"{self.stage.name}/{name}", row[name], done)
        note = f"loss {row['loss']:.4f}  {row['images_per_second']:.0f} images/s"
        self.progress.update(self.task, note=note)
        if not self.console.is_terminal:
            self.console.print(f"{self.stage.name} {done}/{self.stage.total_steps}  {note}")
        self.sums, self.count, self.since = {}, 0, time.perf_counter()


def _tensorboard(folder: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "--tensorboard: the package is missing; pip install 'lord-fast[tensorboard]'"
        ) from error
    return SummaryWriter(folder)
