"""An unfinished store is called OUT.partial, and only one process at a time may fill it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lord_fast.atomic import MARKER, finish_folder, partial_of, refuse_existing, remove_partial
from lord_fast.lock import LOCK, folder_lock

PACKING = "packing.json"
"""A file that describes what is packed into an unfinished store. Earlier versions wrote this file
but no marker."""


@contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """Create or reuse the unfinished folder of the store `out` and lock it for this process.

    It may hold files of an earlier process. It remains when the block ends, unless `finish`
    renamed it or `discard` removed it.

    Args:
        out: The store to create. It must not exist. Its parent is created if needed.

    Yields:
        OUT.partial.

    Raises:
        ValueError: `out` exists, another process creates it, or OUT.partial was not created by
            lord-fast.
    """
    refuse_existing(out)
    partial = partial_of(out)
    _own(partial)
    with folder_lock(partial):
        try:
            refuse_existing(out)  # Another process may have finished it before the lock.
        except ValueError:
            discard(partial)
            raise
        yield partial


def finish(partial: Path, out: Path) -> None:
    """Rename a complete store to `out`."""
    finish_folder(partial, out)
    for name in (PACKING, LOCK):
        (out / name).unlink(missing_ok=True)


def discard(partial: Path) -> None:
    """Remove an unfinished store."""
    remove_partial(partial)


def _own(partial: Path) -> None:
    """Create a folder with lord-fast's marker, or check that lord-fast created the existing one.

    Raises:
        ValueError: Another program created the folder.
    """
    if partial.is_symlink() or (partial.exists() and not partial.is_dir()):
        raise _foreign(partial)
    partial.mkdir(parents=True, exist_ok=True)
    ours = (partial / MARKER).is_file() or _is_packing(partial / PACKING)
    if not ours and any(path.name != LOCK for path in partial.iterdir()):
        raise _foreign(partial)
    (partial / MARKER).touch()


def _is_packing(file: Path) -> bool:
    """Return whether a file is a packing.json of an earlier version of lord-fast."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"started", "source", "decoder", "size"} <= set(content)


def _foreign(partial: Path) -> ValueError:
    return ValueError(f"{partial}: in the way, and not an unfinished store of lord-fast; move it")
