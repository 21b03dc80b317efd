"""The processes that train together. One process is the trivial case, which moves nothing."""

from collections.abc import Callable, Sequence
from types import TracebackType

import torch
from torch import Tensor

from lord_fast.distributed.shards import Shards, whole


class Group:
    """One process, which owns all virtual ranks. `lord_fast.distributed.processes` has the others.

    Args:
        shards: The virtual ranks.

    Attributes:
        rank: Number of this process.
        world: Number of processes.
        step: The training step that errors name.
    """

    rank, world = 0, 1

    def __init__(self, shards: Shards | None = None):
        self.shards = shards or whole(1)
        self.step = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and writes what all processes share."""
        return self.rank == 0

    def __enter__(self) -> "Group":
        """Connect the processes."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Leave the group. After a normal end all processes wait for each other."""

    def sum(self, values: Tensor) -> Tensor:
        """Add a tensor [n] of every process, in the same order for any number of processes."""
        return values

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Concatenate tensors [B, ...] of all processes in the order of the virtual ranks."""
        return rows

    def select(self, rows: Tensor, image_ids: Tensor) -> Tensor:
        """Take the rows of images from the processes that own the images.

        Args:
            rows: One row per image, [B, ...]. Only the rows of own images are used.
            image_ids: The same images in every process, int64 [B].

        Returns:
            The rows of the owners, [B, ...].
        """
        size = self.shards.count // self.world
        owners = torch.remainder(image_ids, self.shards.count) // size
        every = self.gather_rows(rows).unflatten(0, (self.world, len(rows)))
        return every[owners, torch.arange(len(rows), device=rows.device)]

    def agree(self, flags: Sequence[int]) -> list[int]:
        """Return the largest value of each flag among the processes."""
        return list(flags)

    def share(self, flags: Sequence[int]) -> list[int]:
        """Start to share some flags without waiting, and return what was shared last.

        In a group of processes the largest values arrive one call later, at the same call in all
        processes. A process that trains alone gets its own flags at once.
        """
        return list(flags)

    def gather_texts(self, text: str) -> list[str]:
        """Return a text of every process, in the order of the processes."""
        return [text]

    def together(self, work: Callable[[], None]) -> None:
        """Do something in every process and wait until all have done it.

        The work may take longer than `--timeout`. It runs in a thread and must not use the group.

        Raises:
            Exception: What `work` raised in this process.
            Ended: The work failed in another process, which says why.
        """
        work()

    def alone(self, work: Callable[[], None]) -> None:
        """Do something in the first process while the others wait.

        Raises:
            Exception: See `together`.
        """
        self.together(work if self.first else _nothing)


def _nothing() -> None:
    """Wait for the others."""
