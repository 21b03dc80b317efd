"""Loads a model for a command, which may set this process up as it likes."""

from pathlib import Path

from lord_fast.lord import Lord
from lord_fast.lord.read import AnyStage
from lord_fast.machine import keep_freed_memory, set_threads
from lord_fast.run.config import load_config


def open_model(model: Path, stage: AnyStage = "auto") -> Lord:
    """Load a model and set up the threads and the allocator of this process for it.

    Raises:
        ValueError: See `Lord`.
    """
    lord = Lord(model.as_posix(), stage=stage)
    _set_up(lord.config.machine.threads)
    return lord


def set_up_for_run(run: Path) -> None:
    """Set up the threads and the allocator of this process like the training of a run.

    Raises:
        ValueError: The folder is not a run.
    """
    _set_up(load_config(run / "config.yaml")[0].machine.threads)


def _set_up(threads: int) -> None:
    set_threads(threads)
    keep_freed_memory()
