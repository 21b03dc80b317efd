"""Reads the batch of each step and sends it to the device while earlier steps are computed."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lord_fast.data.sampler import EpochSampler
from lord_fast.data.store import ImageStore

AHEAD = 2
"""Number of batches that are read ahead."""


class Batch(NamedTuple):
    """The images of a step, on the device.

    Attributes:
        image_ids: int64 [B].
        class_ids: int64 [B].
        pixels: uint8 [B, C, H, W], channels last in memory.
        by_class: The class ids in ascending order and the batch position of each, int64 [2, B].
    """

    image_ids: Tensor
    class_ids: Tensor
    pixels: Tensor
    by_class: Tensor


class Loader:
    """Reads batches ahead in a thread. The number of a step determines its images.

    Images are copied to a GPU asynchronously from pinned memory.

    Args:
        store: The store to read from.
        sampler: Selects the images of each step.
        device: Device of the batches.

    Attributes:
        waited: Seconds that `batch` has waited for images.
    """

    def __init__(self, store: ImageStore, sampler: EpochSampler, device: torch.device):
        self.store, self.sampler, self.device = store, sampler, device
        self.waited = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._ready: dict[int, Future[Batch]] = {}

    def batch(self, step: int) -> Batch:
        """Return the batch of a step and start to read the following ones.

        Steps may be requested in any order.
        """
        wanted = range(step, step + 1 + AHEAD)
        for other in set(self._ready) - set(wanted):
            self._ready.pop(other).cancel()
        for ahead in wanted:
            if ahead not in self._ready:
                # The sampler caches the orders of epochs, so it is called outside the thread.
                image_ids = self.sampler.image_ids(ahead)
                self._ready[ahead] = self._thread.submit(self._read, image_ids)
        start = time.perf_counter()
        found = self._ready.pop(step).result()
        self.waited += time.perf_counter() - start
        return found

    def _read(self, image_ids: Tensor) -> Batch:
        # Uses NumPy, because a PyTorch gather in this thread would start a second thread pool.
        classes = self.store.class_ids.numpy()[image_ids.numpy()]
        order = np.argsort(classes, kind="stable")
        by_class = torch.from_numpy(np.stack((classes[order], order)))
        ids = self._send(image_ids)
        images = self.store.images(
            ids if self.store.placed == "cuda" else image_ids, pinned=self.device.type == "cuda"
        )
        return Batch(
            ids, self._send(torch.from_numpy(classes)), self._send(images), self._send(by_class)
        )

    def _send(self, tensor: Tensor) -> Tensor:
        on_host = self.device.type == "cuda" and tensor.device.type == "cpu"
        if on_host and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        # On mps an asynchronous copy might read the images after they are freed.
        return tensor.to(self.device, non_blocking=self.device.type == "cuda")
