"""Reads the images of a large array in blocks."""

import threading
from collections.abc import Callable

import numpy as np

BLOCK = 256
"""Largest number of images in a block."""
BLOCK_BYTES = 64 << 20
"""Largest size of a block in bytes. A larger image forms its own block."""
KEPT = 3
"""Number of blocks in memory. A few suffice, because workers read in nearly ascending order."""


class Blocks:
    """Reads single images of an array that does not fit in memory. Threads may share it.

    Args:
        count: Number of images in the array.
        read: Takes start and stop, and returns these images, uint8 [stop - start, ...].
        size: Size of an image in bytes.
    """

    def __init__(self, count: int, read: Callable[[int, int], np.ndarray], size: int):
        self.count, self.read = count, read
        self.block = max(1, min(BLOCK, BLOCK_BYTES // max(1, size)))
        self._lock = threading.Lock()
        self._blocks: dict[int, np.ndarray] = {}

    def __call__(self, i: int) -> np.ndarray:
        """Return image number `i`."""
        start = i - i % self.block
        with self._lock:
            if start not in self._blocks:
                if len(self._blocks) == KEPT:
                    self._blocks.pop(next(iter(self._blocks)))
                self._blocks[start] = self.read(start, min(start + self.block, self.count))
            return self._blocks[start][i - start]
