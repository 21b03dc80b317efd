"""Images of one large array, read some at a time and forgotten."""

import threading
from collections.abc import Callable

import numpy as np

BLOCK = 256
"""Images read at a time."""
KEPT = 3
"""Blocks held: workers ask for images in nearly ascending order."""


class Blocks:
    """One image after the other of an array that does not fit memory; safe to use from threads.

    Args:
        count: Images in the array.
        read: (start, stop) -> those images, uint8 [stop - start, ...].
    """

    def __init__(self, count: int, read: Callable[[int, int], np.ndarray]):
        self.count, self.read = count, read
        self._lock = threading.Lock()
        self._blocks: dict[int, np.ndarray] = {}

    def __call__(self, i: int) -> np.ndarray:
        """Image number `i`."""
        start = i - i % BLOCK
        with self._lock:
            if start not in self._blocks:
                if len(self._blocks) == KEPT:
                    self._blocks.pop(next(iter(self._blocks)))
                self._blocks[start] = self.read(start, min(start + BLOCK, self.count))
            return self._blocks[start][i - start]
