"""Tests the location of a store's images. tests/test_step_cuda.py tests it on a GPU."""

import pytest
import torch

from lord_fast.data import store as module
from lord_fast.data.store import ImageStore

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def memory(monkeypatch):
    """The number of free bytes by type of device, which tests may change."""
    free = {"cuda": 0, "cpu": 0}
    monkeypatch.setattr(module, "free_memory", lambda device: free[device.type])
    return free


def test_auto_selects_the_first_place_with_enough_memory(glyph_store, memory):
    store = ImageStore(glyph_store)
    size = store.pixels.nbytes
    for gpu, host, wanted in (
        (2 * size, 0, "cuda"), (2 * size - 2, 2 * size, "pinned"), (0, 2 * size - 2, "disk")
    ):  # fmt: skip
        memory.update(cuda=gpu, cpu=host)
        assert store._best_place(CUDA) == wanted
    assert store._best_place(CPU) == "disk"
    store.place("auto", CPU)
    assert store.placed == "disk"


def test_a_place_that_is_too_small_is_an_error(glyph_store, memory):
    for where in ("cuda", "pinned"):
        with pytest.raises(ValueError, match=f"--store-device {where}: the images take"):
            ImageStore(glyph_store).place(where, CUDA)


def test_resident_images_are_the_same(glyph_store):
    store, ids = ImageStore(glyph_store), torch.tensor([5, 0, 159, 5])
    wanted = store.images(ids)
    store._resident = store.pixels.clone()
    assert torch.equal(store.images(ids), wanted)
    assert store.images(ids).is_contiguous(memory_format=torch.channels_last)
