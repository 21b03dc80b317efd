"""Files and folders that are there whole or not at all, whatever interrupts their writing."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lord_fast.errors import naming

MARKER = ".lord-fast-partial"
"""A file in every unfinished folder that lord-fast makes: only what holds it is removed."""


def atomic_write(path: Path, content: bytes | str | Callable[[BinaryIO], object]) -> None:
    """Write a file: aside, synced, renamed, the rename synced.

    Args:
        path: Replaced if it exists. Its folder is made if need be.
        content: The bytes, the text (UTF-8), or a function that writes to a stream.

    Raises:
        OSError: the disk is full or not writable. Nothing is left beside `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    partial = Path(name)
    try:
        with naming(path), os.fdopen(descriptor, "wb") as stream:
            if callable(content):
                content(stream)
            else:
                stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        let_others_read(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """A new folder to fill, which becomes `out` when the block ends.

    Every file in it is synced before the rename. An error removes the folder. What a killed
    process left there before is removed first, if it carries lord-fast's marker.

    Args:
        out: Must not exist. Its parent is made if need be.

    Yields:
        The folder to fill, beside `out`.

    Raises:
        ValueError: `out` exists, or another program's folder is in the way.
    """
    if out.exists():
        raise ValueError(f"{out}: exists already; give another folder or remove it")
    partial = partial_of(out)
    remove_partial(partial)
    partial.mkdir(parents=True)
    (partial / MARKER).touch()
    try:
        yield partial
        finish_folder(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def finish_folder(partial: Path, out: Path) -> None:
    """Sync a filled folder and give it its name.

    The marker goes last: a folder that is still called partial has it, whatever kills the process.
    """
    for path in partial.rglob("*"):
        sync(path)
    sync(partial)
    partial.rename(out)
    sync(out.parent)
    (out / MARKER).unlink(missing_ok=True)


def refuse_overlap(source: Path, out: Path) -> None:
    """Refuse to make a folder where that would destroy or change what it is made from.

    Args:
        source: What is read: a file or a folder.
        out: The folder to make.

    Raises:
        ValueError: the source is `out` or its unfinished folder, lies inside one of them, or
            `out` lies inside the source.
    """
    for made in (out, partial_of(out)):
        if _is_inside(source, made):
            raise ValueError(
                f"{source}: lies in {made}, which would be written for {out}; give another folder"
            )
    if _is_inside(out, source):
        raise ValueError(f"{out}: lies in {source}, which is only read; give a folder outside it")


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies in it, by whichever names and links."""
    if not folder.exists():
        return False
    path = path.resolve()
    return any(p.exists() and p.samefile(folder) for p in (path, *path.parents))


def partial_of(out: Path) -> Path:
    """Where `out` is made before it has its name."""
    return out.with_name(out.name + ".partial")


def remove_partial(partial: Path) -> None:
    """Remove an unfinished folder that lord-fast made.

    Raises:
        ValueError: something else has that name.
    """
    if not partial.exists() and not partial.is_symlink():
        return
    if partial.is_symlink() or not (partial / MARKER).is_file():
        raise ValueError(
            f"{partial}: in the way, and not an unfinished folder of lord-fast; move it"
        )
    shutil.rmtree(partial)


def sync(path: Path) -> None:
    """Have the system write a file or folder to the disk."""
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    # Windows syncs only what is open for writing.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def let_others_read(file: Path) -> None:
    """Give a file the mode that the umask allows, where a library made it private."""
    file.chmod(0o666 & ~_umask())


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
