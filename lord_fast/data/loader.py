"""The batch of each step, read and sent to the device while the step before is computed."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from lord_fast.data.sampler import EpochSampler
from lord_fast.data.store import ImageStore

AHEAD = 2
"""Batches ready or in the making beside the one in use."""


class Batch(NamedTuple):
    """What a step sees, on the device.

    Attributes:
        image_ids: int64 [B].
        class_ids: int64 [B].
        pixels: uint8 [B, C, H, W], channels last in memory.
    """

    image_ids: Tensor
    class_ids: Tensor
    pixels: Tensor


class Loader:
    """A thread that reads ahead. Which images a step sees is known from the step alone.

    Copies to a GPU start from pinned memory and block nobody, so that the step never waits for
    the host.

    Args:
        store: Where the images are.
        sampler: Which of them a step sees.
        device: Where they go.

    Attributes:
        waited: Seconds that `batch` waited for images so far.
    """

    def __init__(self, store: ImageStore, sampler: EpochSampler, device: torch.device):
        self.store, self.sampler, self.device = store, sampler, device
        self.waited = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._ready: dict[int, Future[Batch]] = {}

    def batch(self, step: int) -> Batch:
        """The batch of a step.

        Steps may be asked for in any order. The following ones are read ahead.
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
        found = self._ready.pop(step).result()
        self.waited += time.perf_counter() - start
        return found

    def _read(self, image_ids: Tensor) -> Batch:
        # NumPy: a gather of PyTorch in a thread of its own starts a second team of threads.
        class_ids = torch.from_numpy(self.store.class_ids.numpy()[image_ids.numpy()])
        ids = self._send(image_ids)
        images = self.store.images(ids if self.store.placed == "cuda" else image_ids)
        return Batch(ids, self._send(class_ids), self._send(images))

    def _send(self, tensor: Tensor) -> Tensor:
        if self.device.type == "cuda" and tensor.device.type == "cpu":
            tensor = tensor.pin_memory()
        # On mps a copy that nobody waits for may read the images after they are freed.
        return tensor.to(self.device, non_blocking=self.device.type == "cuda")
