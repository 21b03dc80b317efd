"""The training loop of both stages, with logging, grids, checkpoints, signals and resuming."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from lord_fast.errors import Interrupted
from lord_fast.grid import save_png
from lord_fast.train.callbacks import NONE, Callbacks
from lord_fast.train.log import Log, NotFinite
from lord_fast.train.recovery import Recovery
from lord_fast.train.stage import Stage

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
"""Sent by Ctrl-C, by `kill`, by a closed terminal and by Slurm. Windows lacks the last two."""


def run_stage(
    stage: Stage,
    run: Path,
    console: Console,
    from_step: int | None = None,
    callbacks: Callbacks = NONE,
) -> None:
    """Run a stage to its end, from its last checkpoint if it has one.

    Args:
        stage: The stage. Its state is restored and advanced.
        run: The run's folder.
        console: Shows the progress.
        from_step: Go back to the checkpoint of this step. 0 starts the stage again.
        callbacks: Functions to call after every step and every save.

    Raises:
        Interrupted: The process received one of `SIGNALS`. A checkpoint of the last step was
            written before, unless a value in that step is not finite.
        ValueError: Too many steps are not finite (see `lord_fast.train.recovery`), or every
            checkpoint is damaged.
    """
    stage.begin()
    log = Log(stage, run, console)
    recovery = Recovery(stage, run, log, console, callbacks.on_save)
    with _signals() as caught, log, recovery.writer:
        done = recovery.restore(from_step)
        while done < stage.total_steps:
            step, done = done, done + 1
            try:
                if done not in recovery.skipped:
                    scalars = stage.step(step)
                    log.add(done, scalars)
                    callbacks.on_step(done, scalars)
                signum = _after_step(stage, run, log, recovery, done, caught)
            except NotFinite as found:
                signum = stage.group.agree(caught[:1] or [0])[0]
                if signum:
                    recovery.writer.wait()
                    saved = f"saved up to {recovery.good}" if recovery.good else "nothing saved"
                    raise Interrupted(signum, done, f"{saved} because {found}") from found
                done = recovery.go_back(found, done)
                continue
            if signum and done < stage.total_steps:
                raise Interrupted(signum, done)


def _after_step(
    stage: Stage, run: Path, log: Log, recovery: Recovery, done: int, caught: list[int]
) -> int:
    """Write the outputs that are due after a step. Return the number of a signal, or 0.

    All processes write the same outputs, and receive the signal of any of them, at the same step.
    """
    config, last = stage.config.logging, done == stage.total_steps
    recovery.check(done)
    if done % config.log_every == 0 or last:
        log.write(done, recovery.skipped)
    signum, picture_is_due = stage.group.share([*(caught[:1] or [0]), log.is_picture_due()])
    if done % config.grid_every == 0 or last or picture_is_due:
        picture = run / "grids" / f"{stage.name}-{done:09d}.png"
        made = stage.swapped(done)
        image = stage.grid(made)
        if stage.group.first:
            save_png(picture, image)
        log.show_picture(done, picture)
        if stage.is_collapsed(made, done):
            log.say_collapsed()
    if done % config.save_every == 0 or last or signum:
        recovery.save(done)
    if last or signum:
        recovery.writer.wait()
    return signum


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect signals, so that training can save before it ends.

    A second Ctrl-C ends the process at once. A SIGHUP that nohup made the process ignore stays
    ignored.
    """
    caught: list[int] = []

    def handle(signum: int, frame) -> None:
        if caught and signum == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(signum)

    wanted = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    hangup = getattr(signal, "SIGHUP", None)
    previous = {
        signum: signal.signal(signum, handle)
        for signum in wanted
        if signum != hangup or signal.getsignal(signum) != signal.SIG_IGN
    }
    try:
        yield caught
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
