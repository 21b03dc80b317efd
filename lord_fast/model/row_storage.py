"""Where the rows of a streamed table lie: in a scratch file or in host memory.

A row holds weight and both moments side by side, so that one access reads or writes all of it.
Both classes have the same methods, which threads call. They use NumPy, because PyTorch operations
in a thread would start a second pool of threads.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch

from lord_fast.errors import naming
from lord_fast.memory import ask_for_huge_pages

PARTS = 3
"""Weight, first moment and second moment."""


class RowStorage(Protocol):
    """Rows [num_rows, 3, dim] in float32."""

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Copy rows, int64 [k], to `out`, float32 [k, 3, dim], contiguous."""

    def write(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Copy `values`, float32 [k, 3, dim], contiguous, to rows, int64 [k]."""

    def close(self) -> None:
        """Free the rows."""


class FileRows:
    """Rows in a scratch file that has no name.

    The file system frees it when the process ends, also after SIGKILL. Nothing ever reads it in
    another process, so it is never synced.

    Args:
        folder: Folder on whose file system the file lies. It is created if it does not exist.
        dim: Length of a code.

    Raises:
        OSError: The file cannot be created.
    """

    def __init__(self, folder: Path, dim: int):
        self.path = folder / "content table (scratch file)"
        """Names the file in errors."""
        self.row_bytes = PARTS * dim * 4
        with naming(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = tempfile.TemporaryFile(buffering=0, dir=folder)  # noqa: SIM115
        self._fd = self._file.fileno()
        self._advise("POSIX_FADV_RANDOM", 0, 0)

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """See `RowStorage.read`.

        All rows are announced to the system first, which then reads them in parallel.

        Raises:
            OSError: The file cannot be read. The error names it.
        """
        view, size = _as_bytes(out), self.row_bytes
        with naming(self.path):
            runs = list(_runs(rows))
            for begin, end, row in runs:
                self._advise("POSIX_FADV_WILLNEED", row * size, (end - begin) * size)
            for begin, end, row in runs:
                at = row * size
                part = view[begin * size : end * size]
                while len(part):
                    done = os.preadv(self._fd, [part], at)
                    if done == 0:
                        raise OSError(0, "is shorter than the table", str(self.path))
                    part, at = part[done:], at + done

    def write(self, rows: np.ndarray, values: np.ndarray) -> None:
        """See `RowStorage.write`.

        Raises:
            OSError: The file cannot be written. The error names it.
        """
        view, size = _as_bytes(values), self.row_bytes
        with naming(self.path):
            for begin, end, row in _runs(rows):
                at = row * size
                part = view[begin * size : end * size]
                while len(part):
                    done = os.pwrite(self._fd, part, at)
                    part, at = part[done:], at + done

    def close(self) -> None:
        """Close the file, which frees its space."""
        self._file.close()

    def _advise(self, name: str, start: int, length: int) -> None:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, start, length, getattr(os, name))


class HostRows:
    """Rows in host memory, for steps on a GPU whose memory the table does not fit.

    Args:
        num_rows: Number of rows.
        dim: Length of a code.
    """

    def __init__(self, num_rows: int, dim: int):
        rows = torch.empty(num_rows, PARTS, dim)
        ask_for_huge_pages(rows)
        self._rows = rows.numpy()

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """See `RowStorage.read`."""
        np.take(self._rows, rows, axis=0, out=out, mode="clip")  # another mode copies twice

    def write(self, rows: np.ndarray, values: np.ndarray) -> None:
        """See `RowStorage.write`."""
        self._rows[rows] = values

    def close(self) -> None:
        """Free the memory."""
        self._rows = np.empty((0, PARTS, 0), dtype=np.float32)


def _as_bytes(values: np.ndarray) -> memoryview:
    assert values.flags.c_contiguous
    return values.reshape(-1).view(np.uint8).data


def _runs(rows: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Yield runs of consecutive rows as (first place, end, first row), for one access each."""
    if len(rows) == 0:
        return
    cuts = (np.flatnonzero(np.diff(rows) != 1) + 1).tolist()
    begins = [0, *cuts]
    yield from zip(begins, [*cuts, len(rows)], rows[begins].tolist(), strict=True)
