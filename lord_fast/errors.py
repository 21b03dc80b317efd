"""Exceptions that the command line turns into exit codes (bad input is a plain ValueError)."""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TRACEBACK = "LORD_FAST_TRACEBACK"
"""Environment variable that shows where an error comes from."""
LESS = {
    "train": "lower --batch-size",
    "train-encoders": "lower --batch-size",
    "demo": "train with a lower --batch-size",
    "bench": "lower --batch-size or --size, or give --no-scaling",
    "pack": "lower --workers or --size",
    "sample": "lower -n",
    "interpolate": "lower --steps",
    "fit": "give fewer files",
    "encode": "give fewer files",
    "translate": "give fewer files",
}
"""What a verb that ran out of memory can do with."""


class Interrupted(Exception):  # noqa: N818 (not an error)
    """A signal ended a run; its state is saved.

    Attributes:
        signum: The signal's number.
    """

    def __init__(self, signum: int, where: int | str, saved: str = "all saved"):
        """Say which signal, after how many steps or at what, and what is saved."""
        name = signal.Signals(signum).name
        after = f"after step {where}" if isinstance(where, int) else where
        super().__init__(f"stopped by {name} {after}, {saved}; run it again to go on")
        self.signum = signum


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an OSError that names no file, as of a full disk, the name of what was written."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def fitting(batch_size: int) -> Iterator[None]:
    """Say of steps that run out of memory, on a GPU or the host, which --batch-size to try."""
    try:
        yield
    except Exception as error:
        if not _is_out_of_memory(error) or batch_size == 1:
            raise
        raise ValueError(
            f"out of memory with --batch-size {batch_size}; try --batch-size {batch_size // 2}"
        ) from error


def explain(error: BaseException, verb: str) -> tuple[int, str]:
    """What the command line makes of an exception.

    Args:
        error: What ended a verb.
        verb: Such as train.

    Returns:
        The exit code, and one line for stderr; empty: nothing is to be said.
    """
    if isinstance(error, KeyboardInterrupt):
        return 130, ""
    if isinstance(error, Interrupted):
        return 128 + error.signum, str(error)
    if _is_out_of_memory(error):
        return 2, f"out of memory; {LESS.get(verb, 'close other programs, or take less data')}"
    if isinstance(error, OSError) and error.strerror:
        return 2, ": ".join(filter(None, (_name(error), error.strerror)))
    if isinstance(error, ValueError | OSError):
        return 2, str(error)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return 1, (
        f"unforeseen error ({what}). Please report it with the output of lord-fast doctor; "
        f"{TRACEBACK}=1 shows where it happened"
    )


def _is_out_of_memory(error: BaseException) -> bool:
    torch = sys.modules.get("torch")
    of_torch = torch is not None and isinstance(error, torch.OutOfMemoryError)
    # PyTorch's allocator for the CPU has no type of its own.
    of_cpu = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    of_system = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or of_torch or of_cpu or of_system


def _name(error: OSError) -> str:
    return "" if error.filename is None else os.fsdecode(error.filename)
