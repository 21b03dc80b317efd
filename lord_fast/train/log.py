"""Logs the steps of a stage to the console, to stats.jsonl and to the loggers of the user.

All processes add up the same scalars. Only the first one writes them.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from lord_fast.run.stats import append_stats, forget_after
from lord_fast.train.loggers import open_loggers
from lord_fast.train.stage import Stage

MOST_UNSEEN = 1000
"""Number of losses that may accumulate on the device before the host checks them."""
FIRST_PICTURE = 20.0
"""Seconds after which a stage draws a grid if it has none yet."""


class NotFinite(Exception):  # noqa: N818 (caught, and turned into another step)
    """A step made the loss or a tensor infinite or NaN.

    Attributes:
        step: Number of the step, counted from 1.
        what: The loss, or the name of the tensor as NAMESPACE/NAME.
    """

    def __init__(self, step: int, what: str):
        super().__init__(f"{what} is not finite after step {step}")
        self.step, self.what = step, what


class Log:
    """Averages the scalars of a stage's steps and writes a line every few steps.

    Args:
        stage: The stage.
        run: The run's folder.
        console: Shows the progress.
    """

    def __init__(self, stage: Stage, run: Path, console: Console):
        self.stage, self.console = stage, console
        self.file = run / "stats.jsonl"
        self.first = stage.group.first
        self.loggers = open_loggers(run, stage.name, stage.config) if self.first else []
        self.sums: dict[str, Tensor] = {}
        self.losses: list[tuple[int, Tensor]] = []
        self.count, self.last_line = 0, 0
        self.timed, self.since = 0, time.perf_counter()
        self.started = time.perf_counter()
        self.has_picture = any((run / "grids").glob(f"{stage.name}-*.png"))
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self.task = self.progress.add_task(stage.name, total=stage.total_steps, note="")

    def __enter__(self) -> None:
        self.progress.start()

    def __exit__(self, *error) -> None:
        self.progress.stop()
        for logger in self.loggers:
            logger.close()

    def go_to(self, step: int, state: dict[str, Tensor] | None) -> None:
        """Continue after `step` steps, with the sums from a checkpoint.

        Args:
            step: Number of completed steps. Lines of later steps are removed from stats.jsonl.
            state: A state from `state`. None starts with empty sums.
        """
        if self.first:
            forget_after(self.file, self.stage.name, step)
        self.losses, self.timed, self.since = [], 0, time.perf_counter()
        self.progress.update(self.task, completed=step)
        if state is None:
            self.sums, self.count, self.last_line = {}, 0, step
            return
        self.count, self.last_line = int(state["count"]), int(state["last_line"])
        self.sums = {
            name.removeprefix("sum."): value.to(self.stage.device)
            for name, value in state.items()
            if name.startswith("sum.")
        }

    def is_picture_due(self) -> bool:
        """Return whether the stage has trained for a while and has no grid yet."""
        return not self.has_picture and time.perf_counter() - self.started >= FIRST_PICTURE

    def show_picture(self, done: int, file: Path) -> None:
        """Print the path of a new grid, and send it to the loggers."""
        self.has_picture = True
        for logger in self.loggers:
            logger.picture(done, file)
        self.console.print(f"picture: {file}")

    def say_collapsed(self) -> None:
        """Warn that all generated images are alike."""
        self.console.print(
            "warning: all generated images are alike, and training does not recover from this; "
            "start a new run with a smaller --lr, more --warmup-steps or another --seed"
        )

    def state(self) -> dict[str, Tensor]:
        """Return the sums and counts that the next line depends on."""
        sums = {f"sum.{name}": value for name, value in self.sums.items()}
        counts = {"count": torch.tensor(self.count), "last_line": torch.tensor(self.last_line)}
        return sums | counts

    def add(self, done: int, scalars: dict[str, Tensor]) -> None:
        """Add the scalars of a step without waiting for the device."""
        for name, value in scalars.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()
        self.losses.append((done, scalars["loss"].detach()))
        if len(self.losses) >= MOST_UNSEEN:
            self.check_losses()
        self.count += 1
        self.timed += 1
        self.progress.update(self.task, completed=done)

    def check_losses(self) -> None:
        """Check the losses since the last check.

        Raises:
            NotFinite: A loss is not finite. The exception names the first such step.
        """
        if not self.losses:
            return
        finite = torch.stack([loss for _, loss in self.losses]).isfinite().tolist()
        if not all(finite):
            raise NotFinite(self.losses[finite.index(False)][0], "the loss")
        self.losses = []

    def write(self, done: int, skipped: Sequence[int] = ()) -> None:
        """Write a line with the means over the steps since the last line, if there were any.

        Args:
            done: Number of completed steps.
            skipped: All steps that were left out. The line lists those since the last line.

        Raises:
            NotFinite: A loss since the last check is not finite.
        """
        self.check_losses()
        if not self.count:
            return
        if self.first:
            self._write(done, [step for step in skipped if self.last_line < step <= done])
        self.sums, self.count, self.last_line = {}, 0, done
        self.timed, self.since = 0, time.perf_counter()

    def _write(self, done: int, left_out: list[int]) -> None:
        means = {name: float(total) / self.count for name, total in self.sums.items()}
        elapsed = time.perf_counter() - self.since
        row = {
            "stage": self.stage.name,
            "step": done,
            "epoch": done / self.stage.steps_per_epoch,
            **means,
            "lr": self.stage.learning_rate(done - 1),
            "images_per_second": self.timed * self.stage.batch_size / elapsed,
        }
        append_stats(self.file, row | ({"skipped": left_out} if left_out else {}))
        self._show(row, [*means, "lr", "images_per_second"])

    def _show(self, row: dict, names: list[str]) -> None:
        done = row["step"]
        for logger in self.loggers:
            logger.scalars(done, {name: row[name] for name in names})
        note = f"loss {row['loss']:.4f}  {row['images_per_second']:.0f} images/s"
        self.progress.update(self.task, note=note)
        if not self.console.is_terminal:
            self.console.print(f"{self.stage.name} {done}/{self.stage.total_steps}  {note}")
