"""One process a folder: a second one that would write there is refused."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"
"""A file in a locked folder: who has locked it. It stays there; the system ends the lock."""


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a folder for this process.

    The system ends the lock with the process, so a file that a killed process left is no
    obstacle. On a network file system the lock holds among hosts only if the mount supports it.

    Args:
        folder: Must exist.

    Raises:
        ValueError: another process holds the folder; its id and host are named.
        OSError: the lock file cannot be written.
    """
    file = folder / LOCK
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if not _take(descriptor):
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            raise ValueError(
                f"{folder}: in use by {holder or 'another process'}; wait until it has ended, "
                f"or give another folder"
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> bool:
    """Lock a file without waiting; False where another process has locked it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
