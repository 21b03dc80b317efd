"""Which process owns which image.

Image i belongs to virtual rank i mod V, where it is row i // V. Each process owns a block of
consecutive virtual ranks. What is learnt depends on V and not on the number of processes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shards:
    """The virtual ranks, and those that this process owns.

    Attributes:
        count: Number of virtual ranks V.
        mine: The virtual ranks of this process.
    """

    count: int = 1
    mine: range = range(1)

    def rows(self, shard: int, num_images: int) -> int:
        """Return the number of images of a virtual rank."""
        return len(range(shard, num_images, self.count))

    def split(self, *tensors: Tensor) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
        """Split tensors of a batch into the parts of the virtual ranks of this process.

        Yields:
            The virtual rank and its parts.
        """
        parts = (tensor.chunk(len(self.mine)) for tensor in tensors)
        return zip(self.mine, zip(*parts, strict=True), strict=True)

    def local(self, image_ids: Tensor) -> Tensor:
        """Return the rows of images in the tables of their virtual ranks, int64 [B]."""
        return torch.div(image_ids, self.count, rounding_mode="floor")


ALONE = Shards()
"""One process with one virtual rank."""


def whole(count: int) -> Shards:
    """Return all virtual ranks in one process."""
    return Shards(count, range(count))


def block(count: int, rank: int, world: int) -> Shards:
    """Return the virtual ranks of process `rank` of `world`.

    Raises:
        ValueError: The processes cannot share the virtual ranks equally.
    """
    if count % world:
        sizes = [str(1 << power) for power in range(count.bit_length())]
        raise ValueError(
            f"--virtual-ranks {count}: {world} processes cannot share them equally; start "
            f"{', '.join(sizes[:-1])}{' or ' if sizes[:-1] else ''}{sizes[-1]}"
        )
    size = count // world
    return Shards(count, range(rank * size, (rank + 1) * size))
