"""Selects the images of each step from the seed and the step, so that a run can resume anywhere."""

import functools

import numpy as np
import torch
from torch import Tensor


class EpochSampler:
    """Visits every image once per epoch in a new random order. A last partial batch is dropped.

    Args:
        num_images: Number of images of the store.
        batch_size: Images per step.
        seed: Seed of the permutations.

    Raises:
        ValueError: There are fewer images than one batch.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int):
        if num_images < batch_size:
            raise ValueError(
                f"{num_images} images are fewer than one batch of {batch_size}; "
                f"use --batch-size {num_images} or less"
            )
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.steps_per_epoch = num_images // batch_size
        # Two orders are kept, because steps that are read ahead may belong to the next epoch.
        self._order = functools.lru_cache(maxsize=2)(
            functools.partial(permutation, num_images, seed)
        )

    def image_ids(self, step: int) -> Tensor:
        """Return the image ids of a step, int64 [batch_size]."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.batch_size
        return self._order(epoch)[start : start + self.batch_size].long()


def permutation(count: int, seed: int, epoch: int) -> Tensor:
    """Return a permutation of range(count) that depends only on the seed and the epoch.

    It is uint32, or int64 for more than 2^32 images. NumPy shuffles both alike, and uint32 takes
    half of the memory.
    """
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))
    order = np.arange(count, dtype=np.uint32 if count <= 1 << 32 else np.int64)
    generator.shuffle(order)
    return torch.from_numpy(order)
