"""Locks a folder, so that only one process writes to it."""

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lord_fast.console import err

LOCK = ".lock"
"""Lock file, which names the process that holds the folder. It remains after the lock ends."""
_FAR = 1 << 20
"""Offset of the byte that is locked on Windows. A locked byte cannot be read, so it must lie
behind the text."""
_held: set[int] = set()


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Lock a folder for this process.

    The system releases the lock when the process ends, so the lock file of a killed process does
    no harm. On a network file system the lock also works between hosts if the server supports
    locks. If the file system has no locks, one line says so and the block runs without one.

    Args:
        folder: An existing folder.

    Raises:
        ValueError: Another process holds the folder. The error names its id and host.
        OSError: The lock file cannot be written.
    """
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    _held.add(descriptor)
    try:
        if not _take(descriptor, folder):
            os.lseek(descriptor, 0, os.SEEK_SET)
            holder = os.read(descriptor, 200).decode(errors="replace").strip()
            raise ValueError(
                f"{folder}: in use by {holder or 'another process'}; wait until it has ended, "
                f"or give another folder"
            )
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def _take(descriptor: int, folder: Path) -> bool:
    """Lock an open file without waiting. Return whether it succeeded."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        err.print(
            f"{folder}: this file system has no locks ({error.strerror}); do not start a second "
            f"process that writes to this folder"
        )
    return True


def _forget_in_child() -> None:
    """Close the lock files in a forked worker, which would keep the lock after its parent died."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
