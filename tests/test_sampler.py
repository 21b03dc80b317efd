import numpy as np
import pytest
import torch

from lord_fast.data import sampler as sampler_module
from lord_fast.data.sampler import EpochSampler, permutation


def test_an_epoch_sees_every_image_once_and_drops_the_last_partial_batch():
    sampler = EpochSampler(num_images=23, batch_size=5, seed=0)
    assert sampler.steps_per_epoch == 4
    seen = torch.cat([sampler.image_ids(step) for step in range(4)])
    assert len(seen.unique()) == 20
    assert set(seen.tolist()) <= set(range(23))


def test_a_batch_depends_only_on_seed_and_step():
    forward = EpochSampler(23, 5, seed=3)
    batches = [forward.image_ids(step).tolist() for step in range(12)]
    again = EpochSampler(23, 5, seed=3)
    assert [again.image_ids(step).tolist() for step in reversed(range(12))] == batches[::-1]
    assert batches[0:4] != batches[4:8]
    assert EpochSampler(23, 5, seed=4).image_ids(0).tolist() != batches[0]


def test_permutation_returns_a_permutation():
    order = permutation(1000, seed=0, epoch=0)
    assert order.long().sort().values.tolist() == list(range(1000))


def test_fewer_images_than_a_batch_are_refused_are_refused():
    with pytest.raises(ValueError, match="--batch-size 7 or less"):
        EpochSampler(7, 8, seed=0)


def test_each_order_is_computed_once_when_reading_ahead_into_the_next_epoch(monkeypatch):
    made = []

    def counted(count, seed, epoch, shard):
        made.append(epoch)
        return permutation(count, seed, epoch, shard)

    monkeypatch.setattr(sampler_module, "permutation", counted)
    ahead = EpochSampler(12, 4, seed=0)
    for step in range(9):
        for other in (step, step + 1, step + 2):
            ahead.image_ids(other)
    assert made == [0, 1, 2, 3]


@pytest.mark.parametrize("count", [1, 2, 70_001])
def test_an_order_in_32_bits_is_that_of_numpy_in_64(count):
    key = np.random.SeedSequence([3, 5])
    wanted = np.random.Generator(np.random.Philox(key)).permutation(count)
    order = permutation(count, seed=3, epoch=5)
    assert order.dtype == torch.uint32
    assert np.array_equal(order.numpy(), wanted)
