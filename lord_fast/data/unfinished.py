"""A store while it is made: OUT.partial, which one process at a time fills."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lord_fast.atomic import MARKER, finish_folder, partial_of, remove_partial
from lord_fast.lock import LOCK, folder_lock

PACKING = "packing.json"
"""What an unfinished store is made of. One without a marker was made by an earlier version."""


@contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """The folder in which the store `out` is made, locked for this process.

    It may hold what an earlier process left there. It stays when the block ends, unless
    `finish` gave it its name or `discard` removed it.

    Args:
        out: Must not exist. Its parent is made if need be.

    Yields:
        OUT.partial.

    Raises:
        ValueError: `out` exists, another process makes it, or something else is called
            OUT.partial.
    """
    _refuse_existing(out)
    partial = partial_of(out)
    _own(partial)
    with folder_lock(partial):
        try:
            _refuse_existing(out)  # it may have been finished while the lock was not ours
        except ValueError:
            discard(partial)
            raise
        yield partial


def finish(partial: Path, out: Path) -> None:
    """Give a complete store its name."""
    finish_folder(partial, out)
    for name in (PACKING, LOCK):
        (out / name).unlink(missing_ok=True)


def discard(partial: Path) -> None:
    """Remove an unfinished store."""
    remove_partial(partial)


def empty(partial: Path) -> None:
    """Remove what an earlier process left in an unfinished store that is ours and locked."""
    for path in partial.iterdir():
        if path.name in (MARKER, LOCK):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise ValueError(f"{out}: exists already; give another folder or remove it")


def _own(partial: Path) -> None:
    """Make a folder with our marker, or see that the one there is ours.

    Raises:
        ValueError: it is someone else's.
    """
    if partial.is_symlink() or (partial.exists() and not partial.is_dir()):
        raise _foreign(partial)
    partial.mkdir(parents=True, exist_ok=True)
    ours = (partial / MARKER).is_file() or _is_packing(partial / PACKING)
    if not ours and any(path.name != LOCK for path in partial.iterdir()):
        raise _foreign(partial)
    (partial / MARKER).touch()


def _is_packing(file: Path) -> bool:
    """Whether a file is the packing.json of an earlier version of lord-fast."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"started", "source", "decoder", "size"} <= set(content)


def _foreign(partial: Path) -> ValueError:
    return ValueError(f"{partial}: in the way, and not an unfinished store of lord-fast; move it")
