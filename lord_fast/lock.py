"""One process a folder: a second one that would write there is refused."""

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lord_fast.console import err

LOCK = ".lock"
"""A file in a locked folder: who has locked it. It stays there; the system ends the lock."""
_FAR = 1 << 20
"""Windows locks bytes, and a locked byte cannot be read: this one lies behind the text."""
_held: set[int] = set()


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a folder for this process.

    The system ends the lock with the process, so a file that a killed process left is no
    obstacle. A network file system keeps other hosts out if its server supports locks; where
    there are none, one line says so and the block runs.

    Args:
        folder: Must exist.

    Raises:
        ValueError: another process holds the folder; its id and host are named.
        OSError: the lock file cannot be written.
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
    """Lock an open file without waiting; False where another process has locked it."""
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
            f"{folder}: this file system has no locks ({error.strerror}); start no second process "
            f"that writes there"
        )
    return True


def _forget_in_child() -> None:
    """A forked worker must not hold the lock when its parent was killed."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
