"""Recovery from values that are not finite. Only finite states are saved.

When a loss or a tensor is not finite, training goes back to the last good checkpoint. It repeats
the steps since then and checks the loss and every updated tensor after each step. At the first step
that is not finite it goes back again and leaves this step out. A run that would have to leave out
more than three steps stops. The checkpoints record which steps were left out.
"""

from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from lord_fast.run import checkpoint, snapshot
from lord_fast.run.tensors import NotFiniteError
from lord_fast.train.log import Log, NotFinite
from lord_fast.train.stage import Stage
from lord_fast.train.writer import Writer

MOST_SKIPPED = 3
"""Number of steps that a run may leave out."""


class Recovery:
    """Saves a stage, restores it, and goes back when a step is not finite.

    Args:
        stage: The stage to save and restore.
        run: The run's folder.
        log: The stage's log. Its sums are part of every checkpoint.
        console: Shows what is restored and what is left out.

    Attributes:
        skipped: Steps that are left out, counted from 1.
        good: The last checkpoint that was saved or loaded, or None. The writer may not have
            finished it.
        writer: Writes checkpoints while training goes on.
    """

    def __init__(self, stage: Stage, run: Path, log: Log, console: Console):
        self.stage, self.log, self.console = stage, log, console
        self.folder = run / "checkpoints"
        self.skipped: list[int] = []
        self.good: Path | None = None
        self.writer = Writer()
        self.good_step = 0
        self.noticed = self.careful_until = 0
        self._said: set[str] = set()

    def restore(self, from_step: int | None = None) -> int:
        """Restore the latest undamaged checkpoint, or a given one.

        Args:
            from_step: Step of the checkpoint. 0 starts the stage again. None selects the latest
                checkpoint.

        Returns:
            Number of completed steps.

        Raises:
            ValueError: Every checkpoint is damaged, or the given one is missing or damaged.
        """
        if from_step is None:
            found = checkpoint.load_latest(self.folder, self.stage.name, self.console.print)
        elif from_step == 0:
            found = None
        else:
            path = checkpoint.find(self.folder, self.stage.name, from_step)
            found = checkpoint.load(path)
        if found is None:
            self.log.go_to(0, None)
            return 0
        self.stage.load_state(found.state)
        self.stage.load_tables(found.tables)
        kept = found.state.get("log")
        self.log.go_to(found.step, kept)
        self.skipped = kept["skipped"].tolist() if kept else []
        self.good, self.good_step = found.path, found.step
        if found.step < self.stage.total_steps:
            self.console.print(f"resuming from {found.path}")
        return found.step

    def save(self, done: int) -> None:
        """Save a checkpoint if the losses and all values updated since the last one are finite.

        It is written while training goes on, unless it holds more than a block of table rows. The
        previous one is waited for.

        Raises:
            NotFinite: A value is not finite. Nothing was written.
            OSError: This checkpoint or the previous one cannot be written.
        """
        self.writer.wait()
        self.log.check_losses()
        skipped = {"skipped": torch.tensor(self.skipped).long()}
        state = self.stage.state() | {"log": self.log.state() | skipped}
        previous = self.good
        if previous and not snapshot.can_link(previous, done, self._once("link")):
            previous = None
        try:
            taken = snapshot.take(self.stage.name, done, state, self.stage.tables(), previous)
            keep = self.stage.config.logging.keep
            write = partial(snapshot.write, self.folder, taken, keep, self._once("remove"))
            if taken.in_memory:
                self.writer.start(write)
            else:
                write()
        except NotFiniteError as found:
            raise NotFinite(done, found.what) from found
        self.good, self.good_step = self.folder / taken.name, done

    def check(self, done: int) -> None:
        """Check whether saving has failed, and a step that is being repeated.

        Raises:
            NotFinite: The loss of a repeated step or a tensor that it updated is not finite.
            OSError: The last checkpoint could not be written.
        """
        self.writer.check()
        if done > self.careful_until:
            return
        self.log.check_losses()
        try:
            snapshot.check(self.stage.state(), self.stage.tables(), since=done - 1)
        except NotFiniteError as found:
            raise NotFinite(done, found.what) from found

    def go_back(self, found: NotFinite, done: int) -> int:
        """Restore the last good checkpoint, to find the faulty step or to leave it out.

        Args:
            found: The value that is not finite.
            done: Number of completed steps.

        Returns:
            Number of completed steps at the checkpoint.

        Raises:
            ValueError: There is no checkpoint, or three steps have been left out already.
            OSError: The last checkpoint could not be written.
        """
        self.writer.wait()
        done = max(done, found.step)
        known = done <= self.careful_until
        if self.good is None or self.noticed > MOST_SKIPPED:
            raise ValueError(self._stopped(found))
        skipped = self.skipped
        if known:
            if len(skipped) == MOST_SKIPPED:
                raise ValueError(self._stopped(found))
            skipped = [*skipped, found.step]
            then = f"leaving out step {found.step} ({len(skipped)} of {MOST_SKIPPED})"
        else:
            self.noticed += 1
            self.careful_until = done
            then = "checking every step"
        self.console.print(f"{found}; going back to {self.good}, {then}")
        step = self.restore(self.good_step)
        self.skipped = skipped
        return step

    def _stopped(self, found: NotFinite) -> str:
        if self.good is None:
            why = "there is no checkpoint to go back to"
        else:
            left_out = ", ".join(map(str, self.skipped)) or "none"
            why = f"the last good checkpoint is {self.good}, steps left out: {left_out}"
        return (
            f"{found}; {why}; train in a new run with a smaller --lr, or with --precision float32"
        )

    def _once(self, kind: str) -> checkpoint.Say:
        """Return a function that prints the first warning of a kind and no later one."""

        def say(line: str) -> None:
            if kind not in self._said:
                self.console.print(line)
            self._said.add(kind)

        return say
