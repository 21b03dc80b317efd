"""Recovery from values that are not finite. Only finite states are saved.

When a loss or a tensor is not finite, training goes back to the last good checkpoint. It repeats
the steps since then and checks the loss and every updated tensor after each step. At the first step
that is not finite it goes back again and leaves this step out. A run that would have to leave out
more than three steps stops. The checkpoints record which steps were left out.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import torch
from rich.console import Console

from lord_fast.distributed.group import Group
from lord_fast.run import checkpoint, snapshot
from lord_fast.run.parts import own_part
from lord_fast.run.tensors import NotFiniteError
from lord_fast.train.callbacks import NONE
from lord_fast.train.log import Log, NotFinite
from lord_fast.train.replicas import check_replicas
from lord_fast.train.stage import Stage
from lord_fast.train.writer import Writer

Result = TypeVar("Result")

MOST_SKIPPED = 3
"""Number of steps that a run may leave out."""


class Recovery:
    """Saves a stage, restores it, and goes back when a step is not finite.

    Args:
        stage: The stage to save and restore.
        run: The run's folder.
        log: The stage's log. Its sums are part of every checkpoint.
        console: Shows what is restored and what is left out.
        on_save: Called with the step and the folder of each complete checkpoint.

    Attributes:
        skipped: Steps that are left out, counted from 1.
        good: The last checkpoint that was saved or loaded, or None. The writer may not have
            finished it.
        writer: Writes checkpoints while training goes on.
    """

    def __init__(
        self,
        stage: Stage,
        run: Path,
        log: Log,
        console: Console,
        on_save: Callable[[int, Path], object] = NONE.on_save,
    ):
        self.stage, self.log, self.console, self.on_save = stage, log, console, on_save
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
            found = self._latest()
        elif from_step == 0:
            found = None
        else:
            path = checkpoint.find(self.folder, self.stage.name, from_step)
            found = checkpoint.load(path, self.stage.shards.mine)
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

    def _latest(self) -> checkpoint.Loaded | None:
        """Load the latest checkpoint that is undamaged in the eyes of all processes."""
        name, mine, group = self.stage.name, self.stage.shards.mine, self.stage.group
        lines: list[str] = []
        found = checkpoint.load_latest(self.folder, name, lines.append, mine)
        for line in dict.fromkeys(group.gather_texts("\n".join(lines))):
            if line:
                self.console.print(line)
        step = found.step if found else 0
        oldest = -group.agree([-step])[0]
        if step == oldest:
            return found
        return checkpoint.load(checkpoint.find(self.folder, name, oldest), mine)

    def save(self, done: int) -> None:
        """Save a checkpoint if the losses and all values updated since the last one are finite.

        It is written while training goes on, unless it holds more than a block of table rows or
        several processes write it. The previous one is waited for.

        Raises:
            NotFinite: A value is not finite. Nothing was written.
            Ended: A process holds another copy of what is the same in all. Nothing was written.
            OSError: This checkpoint or the previous one cannot be written.
        """
        self.writer.wait()
        self.log.check_losses()
        group, keep = self.stage.group, self.stage.config.logging.keep
        skipped = {"skipped": torch.tensor(self.skipped).long()}
        state = self.stage.state() | {"log": self.log.state() | skipped}
        tables = self.stage.tables()
        check_replicas(state, tables, self.good_step, group)
        part = own_part(state, tables, group)
        previous = self._linkable(done)
        name = self.stage.name
        taken = self._all_finite(done, lambda: snapshot.take(name, done, *part, previous))
        try:
            write = partial(snapshot.write, self.folder, taken, keep, self._once("remove"))
            job = partial(self._write, done, write, self.folder / taken.name)
            if group.world > 1:
                job(group)  # The exchanges of all processes stay in one order.
            elif taken.in_memory:
                self.writer.start(job)
            else:
                job()
        except NotFiniteError as found:
            raise NotFinite(done, found.what) from found
        self.good, self.good_step = self.folder / taken.name, done

    def _write(self, done: int, write: Callable[..., object], folder: Path, *group: Group) -> None:
        write(*group)
        self.on_save(done, folder)

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
        state, tables = self.stage.state(), self.stage.tables()
        self._all_finite(done, lambda: snapshot.check(state, tables, since=done - 1))

    def _all_finite(self, done: int, work: Callable[[], Result]) -> Result:
        """Do something that checks values of this process.

        Raises:
            NotFinite: A value of any process is not finite.
        """
        what, result = "", None
        try:
            result = work()
        except NotFiniteError as error:
            what = error.what
        found = [name for name in self.stage.group.gather_texts(what) if name]
        if found:
            raise NotFinite(done, found[0])
        return cast(Result, result)

    def _linkable(self, done: int) -> Path | None:
        """Return the last checkpoint if a later one can link its table files."""
        found, previous = [0], self.good

        def look() -> None:
            found[0] = previous is not None and snapshot.can_link(
                previous, done, self._once("link")
            )

        self.stage.group.alone(look)
        return previous if self.stage.group.agree(found)[0] else None

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
