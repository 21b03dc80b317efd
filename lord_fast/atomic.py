"""Writes files and folders atomically. After a crash they are either complete or absent."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lord_fast.errors import naming
from lord_fast.lock import LOCK, folder_lock

MARKER = ".lord-fast-partial"
"""A file in every unfinished folder of lord-fast. A folder without it is never removed, unless it
holds nothing but a lock."""


def atomic_write(path: Path, content: bytes | str | Callable[[BinaryIO], object]) -> None:
    """Write a file atomically. It is written and synced under another name, then renamed.

    Args:
        path: The file. An existing file is replaced, and its folder is created if needed. A pipe
            or a device is written to directly.
        content: Bytes, text (written as UTF-8), or a function that writes to a stream.

    Raises:
        OSError: The disk is full or not writable. The temporary file is removed.
    """
    path = path.resolve()  # A link stays a link.
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():  # /dev/stdout, a pipe
        with path.open("wb") as stream:
            _write(stream, content)
        return
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    partial = Path(name)
    try:
        with naming(path), os.fdopen(descriptor, "wb") as stream:
            _write(stream, content)
            stream.flush()
            os.fsync(stream.fileno())
        let_others_read(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def _write(stream: BinaryIO, content: bytes | str | Callable[[BinaryIO], object]) -> None:
    if callable(content):
        content(stream)
    else:
        stream.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """Create a folder atomically. The caller fills a temporary folder, which is renamed at the end.

    Every file is synced before the rename. An error removes the temporary folder. A temporary
    folder that a killed process left is emptied first if it holds lord-fast's marker. The temporary
    folder is locked for this process.

    Args:
        out: The folder to create. It must not exist. Its parent is created if needed.

    Yields:
        The temporary folder, beside `out`.

    Raises:
        ValueError: `out` exists, another process creates it, or another program's folder is in the
            way.
    """
    refuse_existing(out)
    partial = partial_of(out)
    own_partial(partial)
    with folder_lock(partial):
        try:
            refuse_existing(out)  # Another process may have finished it before the lock.
            empty(partial)
            yield partial
            finish_folder(partial, out)
            (out / LOCK).unlink()
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def finish_folder(partial: Path, out: Path) -> None:
    """Sync a temporary folder and rename it to `out`.

    The marker is removed after the rename, so that every temporary folder has it even after a
    crash.
    """
    for path in partial.rglob("*"):
        sync(path)
    sync(partial)
    partial.rename(out)
    sync(out.parent)
    (out / MARKER).unlink(missing_ok=True)


def refuse_existing(out: Path) -> None:
    """Check that a folder does not exist yet.

    Raises:
        ValueError: It exists.
    """
    if out.exists():
        raise ValueError(f"{out}: exists already; give another folder or remove it")


def refuse_overwriting(file: Path, overwrite: bool) -> None:
    """Check that writing a file replaces nothing unasked. A pipe or a device may be written to.

    Raises:
        ValueError: The file exists and `overwrite` is False, or it is a folder.
    """
    if file.is_dir():
        raise ValueError(f"{file}: is a folder; give the name of a file")
    if file.is_file() and not overwrite:
        raise ValueError(f"{file}: exists already; give another file, or add --overwrite")


def empty(partial: Path) -> None:
    """Remove the files that an earlier process left in an unfinished folder. It must be locked."""
    for path in partial.iterdir():
        if path.name in (MARKER, LOCK):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def refuse_overlap(source: Path, out: Path) -> None:
    """Check that writing a folder cannot overwrite or change its source.

    Args:
        source: The file or folder that is read.
        out: The folder to create.

    Raises:
        ValueError: The source is `out` or its temporary folder, lies inside one of them, or `out`
            lies inside the source.
    """
    for made in (out, partial_of(out)):
        if _is_inside(source, made):
            raise ValueError(
                f"{source}: lies in {made}, which would be written for {out}; give another folder"
            )
    if _is_inside(out, source):
        raise ValueError(f"{out}: lies in {source}, which is only read; give a folder outside it")


def _is_inside(path: Path, folder: Path) -> bool:
    """Return whether a path is the folder or lies inside it, after resolving links."""
    if not folder.exists():
        return False
    path = path.resolve()
    return any(p.exists() and p.samefile(folder) for p in (path, *path.parents))


def partial_of(out: Path) -> Path:
    """Return the temporary path under which `out` is created."""
    return out.with_name(out.name + ".partial")


def own_partial(partial: Path, is_known: bool = False) -> None:
    """Create an unfinished folder with lord-fast's marker, or take over one of lord-fast.

    Args:
        partial: The folder.
        is_known: Whether an existing folder without a marker is one of lord-fast.

    Raises:
        ValueError: The path exists, but was not created by lord-fast.
    """
    if not _is_ours(partial, is_known):
        partial.mkdir(parents=True, exist_ok=True)
    (partial / MARKER).touch()


def remove_partial(partial: Path) -> None:
    """Remove an unfinished folder that lord-fast created.

    Raises:
        ValueError: The path was not created by lord-fast.
    """
    if _is_ours(partial):
        shutil.rmtree(partial)


def _is_ours(partial: Path, is_known: bool = False) -> bool:
    """Return whether an unfinished folder of lord-fast exists.

    A folder that holds nothing but a lock counts, because a process can end between the folder and
    its marker.

    Raises:
        ValueError: The path exists, but was not created by lord-fast.
    """
    if not partial.exists() and not partial.is_symlink():
        return False
    ours = partial.is_dir() and not partial.is_symlink()
    if ours and not is_known and not (partial / MARKER).is_file():
        ours = all(path.name == LOCK for path in partial.iterdir())
    if not ours:
        raise ValueError(
            f"{partial}: in the way, and not an unfinished folder of lord-fast; move it"
        )
    return True


def file_sha256(file: Path) -> str:
    """Hash a file without loading it into memory."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Flush a file or folder to the disk with fsync."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders.
        return
    # Windows can only sync a file that is open for writing.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def let_others_read(file: Path) -> None:
    """Give a file the permissions of the umask, because some libraries create private files."""
    file.chmod(0o666 & ~_umask())


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
