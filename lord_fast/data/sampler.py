"""Selects the images of each step from the seed and the step, so that a run can resume anywhere.

Every virtual rank orders its own images and gives an equal part of each batch.
"""

import functools

import numpy as np
import torch
from torch import Tensor

from lord_fast.distributed.shards import ALONE, Shards

ORDER = 1
"""First word of the keys of the orders of virtual ranks. Other streams have another first word."""


class EpochSampler:
    """Visits every image once per epoch in a new random order. A last partial batch is dropped.

    Args:
        num_images: Number of images of the store.
        batch_size: Images per step.
        seed: Seed of the permutations.
        shards: The virtual ranks, which share the batch.

    Raises:
        ValueError: There are fewer images than one batch.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int, shards: Shards = ALONE):
        if num_images < batch_size:
            raise ValueError(
                f"{num_images} images are fewer than one batch of {batch_size}; "
                f"use --batch-size {num_images} or less"
            )
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.steps_per_epoch = num_images // batch_size
        self.shards, self.share = shards, batch_size // shards.count
        # Two orders are kept, because steps that are read ahead may belong to the next epoch.
        self._order = functools.lru_cache(maxsize=2 * len(shards.mine))(self._new_order)

    def image_ids(self, step: int) -> Tensor:
        """Return the ids of a step's images that this process owns, int64 [B / processes].

        They are in the order of the virtual ranks.
        """
        shards = self.shards
        ids = [self.rows(step, shard) * shards.count + shard for shard in shards.mine]
        return ids[0] if len(ids) == 1 else torch.cat(ids)

    def rows(self, step: int, shard: int) -> Tensor:
        """Return the rows of a step in the table of a virtual rank, int64 [B / virtual ranks]."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.share
        return self._order(epoch, shard)[start : start + self.share].long()

    def _new_order(self, epoch: int, shard: int) -> Tensor:
        return permutation(self.shards.rows(shard, self.num_images), self.seed, epoch, shard)


def permutation(count: int, seed: int, epoch: int, shard: int = 0) -> Tensor:
    """Return a permutation of range(count), which depends on the other three arguments.

    It is uint32, or int64 for more than 2^32 images. NumPy shuffles both alike, and uint32 takes
    half of the memory.
    """
    key = [seed, epoch]
    if shard:
        # NumPy takes [s, e] for [s, e, 0] and splits a seed over 2^32 in two. A key of fixed
        # length with its use in front and no zero at its end stands for one stream only.
        key = [ORDER, seed & 0xFFFFFFFF, seed >> 32, epoch, shard]
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    order = np.arange(count, dtype=np.uint32 if count <= 1 << 32 else np.int64)
    generator.shuffle(order)
    return torch.from_numpy(order)
