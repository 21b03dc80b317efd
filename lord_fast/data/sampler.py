"""Which images a step sees: a function of (seed, step) alone, so that a run resumes anywhere."""

import functools

import numpy as np
import torch
from torch import Tensor


class EpochSampler:
    """Every image once an epoch, in a new order each time; a last partial batch is dropped.

    Args:
        num_images: Images of the store.
        batch_size: Images a step.
        seed: Of the permutations.

    Raises:
        ValueError: there are fewer images than one batch.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int):
        if num_images < batch_size:
            raise ValueError(
                f"{num_images} images are fewer than one batch of {batch_size}; "
                f"use --batch-size {num_images} or less"
            )
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.steps_per_epoch = num_images // batch_size
        # Two: a step and the steps read ahead of it may lie on both sides of an epoch's end.
        self._order = functools.lru_cache(maxsize=2)(
            functools.partial(permutation, num_images, seed)
        )

    def image_ids(self, step: int) -> Tensor:
        """The batch of a step, int64 [batch_size]."""
        epoch, position = divmod(step, self.steps_per_epoch)
        return self._order(epoch)[position * self.batch_size : (position + 1) * self.batch_size]


def permutation(count: int, seed: int, epoch: int) -> Tensor:
    """A permutation of range(count), int64, that depends on (seed, epoch) alone."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))
    return torch.from_numpy(generator.permutation(count))
