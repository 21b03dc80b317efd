"""Where the rows of a streamed table lie: in a scratch file or in host memory.

A row holds weight and both moments side by side, so that one access reads or writes all of it.
Both classes have the same methods, which threads call. They use NumPy, because PyTorch operations
in a thread would start a second pool of threads.
"""

import ctypes
import errno
import os
import tempfile
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch

from lord_fast.errors import naming
from lord_fast.kernels.native import row_file
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
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_RANDOM)

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """See `RowStorage.read`.

        All rows are announced to the system first, which then reads them in parallel.

        Raises:
            OSError: The file cannot be read. The error names it.
        """
        assert out.flags.c_contiguous
        read = row_file.read_rows if row_file.is_built() else _read_rows
        with naming(self.path):
            try:
                read(self._fd, rows.ctypes.data, len(rows), self.row_bytes, out.ctypes.data)
            except EOFError as error:
                raise OSError(errno.EIO, "is shorter than the table") from error

    def write(self, rows: np.ndarray, values: np.ndarray) -> None:
        """See `RowStorage.write`.

        Raises:
            OSError: The file cannot be written. The error names it.
        """
        assert values.flags.c_contiguous
        write = row_file.write_rows if row_file.is_built() else _write_rows
        with naming(self.path):
            write(self._fd, rows.ctypes.data, len(rows), self.row_bytes, values.ctypes.data)

    def close(self) -> None:
        """Close the file, which frees its space."""
        self._file.close()


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


def _read_rows(file: int, rows: int, count: int, row_bytes: int, values: int) -> None:
    """`row_file.read_rows` in Python, where the library is not built."""
    numbers = _view(rows, 8 * count).cast("q")
    for i, row in enumerate(numbers):
        part, at = _view(values + i * row_bytes, row_bytes), row * row_bytes
        while len(part):
            done = os.preadv(file, [part], at)
            if done == 0:
                raise EOFError
            part, at = part[done:], at + done


def _write_rows(file: int, rows: int, count: int, row_bytes: int, values: int) -> None:
    """`row_file.write_rows` in Python, where the library is not built."""
    numbers = _view(rows, 8 * count).cast("q")
    for i, row in enumerate(numbers):
        part, at = _view(values + i * row_bytes, row_bytes), row * row_bytes
        while len(part):
            done = os.pwrite(file, part, at)
            part, at = part[done:], at + done


def _view(address: int, size: int) -> memoryview:
    return memoryview((ctypes.c_char * size).from_address(address)).cast("B")
