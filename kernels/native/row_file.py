"""Scattered rows of a file, read or written in one call, which releases Python's lock once."""

import ctypes
import functools
import os
from ctypes import c_int, c_int64, c_void_p
from typing import Any

from .loader import LIBRARY

_FILE_TOO_SHORT = -1
_ARGUMENTS = (c_int, c_void_p, c_int64, c_int64, c_void_p)


def read_rows(file: int, rows: int, count: int, row_bytes: int, values: int) -> None:
    """Read rows of a file, each at offset row * `row_bytes`.

    Args:
        file: Descriptor of the file.
        rows: Address of int64 [count].
        count: Number of rows.
        row_bytes: Size of a row.
        values: Address of `count` * `row_bytes` bytes, which are overwritten.

    Raises:
        OSError: The file cannot be read.
        EOFError: The file ends before a row.
    """
    _raise(_functions()[0](file, rows, count, row_bytes, values))


def write_rows(file: int, rows: int, count: int, row_bytes: int, values: int) -> None:
    """Write rows of a file, see `read_rows`.

    Raises:
        OSError: The file cannot be written.
    """
    _raise(_functions()[1](file, rows, count, row_bytes, values))


def is_built() -> bool:
    """Whether the library is built and has these functions."""
    return bool(_functions())


@functools.cache
def _functions() -> tuple[Any, ...]:
    try:
        library = ctypes.CDLL(str(LIBRARY))
        functions = library.lord_fast_read_rows, library.lord_fast_write_rows
    except (OSError, AttributeError):
        return ()
    for function in functions:
        function.argtypes = _ARGUMENTS
    return functions


def _raise(status: int) -> None:
    if status == _FILE_TOO_SHORT:
        raise EOFError
    if status:
        raise OSError(status, os.strerror(status))
