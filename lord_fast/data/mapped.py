"""Files that are mapped instead of loaded, so that a store may be larger than the memory."""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np


def map_integers(file: Path, shape: tuple[int, ...], limit: int) -> np.ndarray:
    """Map non-negative integers below a limit.

    Raises:
        ValueError: The file is damaged, or shape or values are wrong.
    """
    try:
        values = np.load(file, mmap_mode=None if 0 in shape else "c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{file}: cannot be read ({error}); pack again") from error
    fits = values.shape == shape and values.dtype.kind == "i"
    if not fits or (values.size and not 0 <= values.min() <= values.max() < limit):
        raise ValueError(f"{file}: does not match the manifest; pack again")
    if isinstance(values, np.memmap):
        _advise(values, "MADV_DONTNEED", 0, None)  # the check has made all of it resident
    return values


def is_ascending(values: np.ndarray, block: int = 1 << 16) -> bool:
    """Return whether no value is smaller than the one before it."""
    starts = range(0, len(values), block)
    return all((np.diff(values[start : start + block + 1]) >= 0).all() for start in starts)


class ScatteredReads:
    """Advice for reading a few parts of a mapped file that does not fit in the free memory.

    By default the system reads 128 kB and more around every page that is missing. Most of it is
    dropped before it is used.

    Args:
        data: The whole file, uint8.
        free: Free memory in bytes.
    """

    def __init__(self, data: np.memmap, free: int):
        self._data = data
        self.needed = data.nbytes > free
        """Whether the file does not fit. Otherwise nothing is advised."""
        if self.needed:
            _advise(data, "MADV_RANDOM", 0, None)

    @contextmanager
    def of(self, starts: np.ndarray, ends: np.ndarray) -> Iterator[None]:
        """Start to read parts in parallel, and unmap them after use so that they are not resident.

        Args:
            starts: Offset of each part in bytes, int64 [k].
            ends: Offset of the end of each part, int64 [k].
        """
        parts = list(zip(starts.tolist(), ends.tolist(), strict=True)) if self.needed else []
        for start, end in parts:
            _advise(self._data, "MADV_WILLNEED", start, end)
        yield
        for start, end in parts:
            _advise(self._data, "MADV_DONTNEED", start, end)


def _advise(data: np.memmap, advice: str, start: int, end: int | None) -> None:
    """Call madvise(2) for bytes of a mapped file. Systems without this advice read as usual."""
    if not hasattr(mmap, advice):
        return
    whole: mmap.mmap = data._mmap  # type: ignore[attr-defined]
    start = start // mmap.PAGESIZE * mmap.PAGESIZE
    whole.madvise(getattr(mmap, advice), start, (len(whole) if end is None else end) - start)
