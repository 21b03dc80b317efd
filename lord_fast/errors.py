"""Turns exceptions into exit codes and error messages. Bad input raises a plain ValueError."""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TRACEBACK = "LORD_FAST_TRACEBACK"
"""Environment variable that makes errors print a traceback."""
LESS = {
    "train": "lower --batch-size",
    "train-encoders": "lower --batch-size",
    "run": "give a smaller --size",
    "demo": "train with a lower --batch-size",
    "bench": "lower --batch-size or --size, or give --no-scaling",
    "pack": "lower --workers or --size",
    "sample": "lower -n",
    "interpolate": "lower --steps",
    "fit": "give fewer files",
    "encode": "give fewer files",
    "translate": "give fewer files",
    "decode": "give fewer codes",
}
"""Advice for each verb when memory runs out."""


class Interrupted(Exception):  # noqa: N818 (not an error)
    """A signal ended a command after its state was saved.

    Attributes:
        signum: The signal's number.
    """

    def __init__(self, signum: int, where: int | str, saved: str = "all saved"):
        """Create the exception.

        Args:
            signum: The signal's number.
            where: The number of completed steps, or a phrase such as "while packing STORE".
            saved: Says what was saved.
        """
        name = signal.Signals(signum).name
        after = f"after step {where}" if isinstance(where, int) else where
        super().__init__(f"stopped by {name} {after}, {saved}; repeat the command to continue")
        self.signum = signum


class Ended(Exception):  # noqa: N818 (one plain line, not a bug to report)
    """The processes that train together cannot go on.

    Attributes:
        code: Exit code of the command.
    """

    def __init__(self, line: str, code: int = 1):
        """Create the exception.

        Args:
            line: What happened. It is empty if another process says so.
            code: Exit code of the command.
        """
        super().__init__(line)
        self.code = code


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add a path to OSErrors that name no file, such as those of a full disk."""
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
    """Return the exit code and the error message for an exception.

    Args:
        error: The exception that ended a verb.
        verb: The verb's name, such as train.

    Returns:
        The exit code, and one line for stderr, which is empty if nothing should be printed.
    """
    if isinstance(error, KeyboardInterrupt):
        return 130, ""
    if isinstance(error, Interrupted):
        return 128 + error.signum, str(error)
    if isinstance(error, Ended):
        return error.code, str(error)
    if _is_out_of_memory(error):
        return 2, f"out of memory; {LESS.get(verb, 'close other programs, or use less data')}"
    if isinstance(error, OSError) and error.strerror:
        return 2, ": ".join(filter(None, (_name(error), error.strerror)))
    if isinstance(error, ValueError | OSError):
        return 2, str(error)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return 1, (
        f"unexpected error ({what}). Please report it with the output of lord-fast doctor. "
        f"Set {TRACEBACK}=1 to see where it happened"
    )


def _is_out_of_memory(error: BaseException) -> bool:
    torch = sys.modules.get("torch")
    of_torch = torch is not None and isinstance(error, torch.OutOfMemoryError)
    # PyTorch's CPU allocator raises a plain RuntimeError.
    of_cpu = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    of_system = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or of_torch or of_cpu or of_system


def _name(error: OSError) -> str:
    return "" if error.filename is None else os.fsdecode(error.filename)
