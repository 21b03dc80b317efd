"""The images of each step, read and decoded while the step before is computed."""

import time
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from lord_fast.data.sampler import EpochSampler
from lord_fast.data.store import ImageStore

AHEAD = 2
"""Batches ready or in the making beside the one in use."""


class Loader:
    """A thread that reads ahead: which images a step sees is known from the step alone.

    Args:
        store: Where the images are.
        sampler: Which of them a step sees.
        device: Where they go.

    Attributes:
        waited: Seconds that `pixels` waited for images so far.
    """

    def __init__(self, store: ImageStore, sampler: EpochSampler, device: torch.device):
        self.store, self.sampler, self.device = store, sampler, device
        self.waited = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._ready: dict[int, Future[Tensor]] = {}

    def pixels(self, step: int) -> Tensor:
        """The images of a step, uint8 [B, C, H, W] on the device, channels last in memory.

        Steps may be asked for in any order; the following ones are read ahead.
        """
        wanted = range(step, step + 1 + AHEAD)
        for other in set(self._ready) - set(wanted):
            self._ready.pop(other).cancel()
        for ahead in wanted:
            if ahead not in self._ready:
                # The sampler keeps the orders of epochs, so it is asked here and not in the thread.
                image_ids = self.sampler.image_ids(ahead)
                self._ready[ahead] = self._thread.submit(self._read, image_ids)
        start = time.perf_counter()
        pixels = self._ready.pop(step).result()
        self.waited += time.perf_counter() - start
        return pixels

    def _read(self, image_ids: Tensor) -> Tensor:
        images = self.store.images(image_ids)
        if self.device.type == "cuda" and not images.is_cuda:
            images = images.pin_memory()
        return images.to(self.device, non_blocking=True)
