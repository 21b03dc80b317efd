"""Reports the progress of long jobs. Library functions call a callback, and commands show a bar."""

from collections.abc import Callable
from typing import TypeVar

Progress = Callable[[int, int], object]
"""Takes the number of finished parts and the number of all parts."""
Part = TypeVar("Part")


def silent(done: int, total: int) -> None:
    """Ignore the progress."""


class Parts:
    """Counts the finished parts of a job.

    Args:
        progress: Called after each part.
        total: Number of all parts.
    """

    def __init__(self, progress: Progress, total: int):
        self.progress, self.total, self.done = progress, total, 0
        progress(0, total)

    def __call__(self, part: Part) -> Part:
        """Count a finished part and return it."""
        self.done += 1
        self.progress(self.done, self.total)
        return part
