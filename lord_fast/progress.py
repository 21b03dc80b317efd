"""How far a long job is: library functions call back, and commands show a bar."""

from collections.abc import Callable
from typing import TypeVar

Progress = Callable[[int, int], object]
"""Called with the number of parts done and the number of all."""
Part = TypeVar("Part")


def silent(done: int, total: int) -> None:
    """The progress that nobody looks at."""


class Parts:
    """Counts the parts of a job as they are done.

    Args:
        progress: Is told after each part.
        total: Number of parts.
    """

    def __init__(self, progress: Progress, total: int):
        self.progress, self.total, self.done = progress, total, 0
        progress(0, total)

    def __call__(self, part: Part) -> Part:
        """Count a part that was just made, and return it."""
        self.done += 1
        self.progress(self.done, self.total)
        return part
