"""Images of one large array, read some at a time and forgotten."""

import threading
from collections.abc import Callable

import numpy as np

BLOCK = 256
"""Images read at a time."""
BLOCK_BYTES = 64 << 20
"""What a block may take, if it is more than one image."""
KEPT = 3
"""Blocks held: workers ask for images in nearly ascending order."""


class Blocks:
    """One image after the other of an array that does not fit memory; safe to use from threads.

    Args:
        count: Images in the array.
        read: (start, stop) -> those images, uint8 [stop - start, ...].
        size: Bytes of an image.
    """

    def __init__(self, count: int, read: Callable[[int, int], np.ndarray], size: int):
        self.count, self.read = count, read
        self.block = max(1, min(BLOCK, BLOCK_BYTES // max(1, size)))
        self._lock = threading.Lock()
        self._blocks: dict[int, np.ndarray] = {}

    def __call__(self, i: int) -> np.ndarray:
        """Image number `i`."""
        start = i - i % self.block
        with self._lock:
            if start not in self._blocks:
                if len(self._blocks) == KEPT:
                    self._blocks.pop(next(iter(self._blocks)))
                self._blocks[start] = self.read(start, min(start + self.block, self.count))
            return self._blocks[start][i - start]
