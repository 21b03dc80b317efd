"""Tests virtual ranks in one process: who owns which row, the streams of each, and the sums."""

import itertools

import pytest
import torch

from lord_fast.config import replace
from lord_fast.data.sampler import EpochSampler, permutation
from lord_fast.data.store import ImageStore
from lord_fast.distributed.ordered import TreeSum, pairwise
from lord_fast.distributed.shards import block, whole
from lord_fast.kernels import Adam
from lord_fast.machine import set_up
from lord_fast.model.build import saved_shards, stored_shards
from lord_fast.model.latent import LatentTable
from lord_fast.run import checkpoint, snapshot
from lord_fast.train import optimizer
from lord_fast.train.gradients import GradientSum
from lord_fast.train.latent import LatentStage, check_class_table
from tests.test_train import SMALL

V = 4


def stage_of(store, **changes) -> LatentStage:
    config = replace(SMALL, **changes)
    return LatentStage(config, ImageStore(store), set_up("cpu", "float32", 1))


def test_every_image_has_one_owner_and_one_row():
    seen = [
        row * 8 + shard
        for rank in range(4)
        for shard in block(8, rank, 4).mine
        for row in range(block(8, rank, 4).rows(shard, 83))
    ]
    assert sorted(seen) == list(range(83))
    with pytest.raises(ValueError, match="start 1, 2, 4 or 8"):
        block(8, 0, 3)


def test_each_virtual_rank_gives_its_share_of_every_batch():
    parts = [EpochSampler(83, 16, 5, block(4, rank, 2)) for rank in range(2)]
    together = EpochSampler(83, 16, 5, whole(4))
    for step in range(12):
        ids = together.image_ids(step)
        assert (ids % 4).tolist() == [v for v in range(4) for _ in range(4)]
        assert torch.equal(ids, torch.cat([part.image_ids(step) for part in parts]))
    epoch = torch.cat([together.image_ids(step) for step in range(5)])
    assert len(epoch.unique()) == 80


def test_streams_of_virtual_ranks_differ_and_the_first_is_that_of_an_ordinary_run():
    keys = itertools.product((0, 1, 2**32, 2**32 + 1), (0, 1), range(3))
    orders = {tuple(permutation(40, *key).tolist()) for key in keys}
    # NumPy's own key, which virtual rank 0 keeps, cannot tell epoch 1 of seeds 0 and 1 from epoch 0
    # of seeds 2^32 and 2^32 + 1.
    assert len(orders) == 22
    assert torch.equal(EpochSampler(40, 8, 3).image_ids(0), permutation(40, 3, 0)[:8].long())

    def codes(seed, shard):
        lr = torch.ones(1)
        return LatentTable(9, 4, lr, adam=Adam(), seed=seed, shard=shard).state.weight

    tables = [codes(seed, shard) for seed in (0, 1, 2**32) for shard in (1, 2, 3)]
    assert len({tuple(table.flatten().tolist()) for table in tables}) == 9
    assert all(-0.05 <= table.min() < -0.02 and 0.02 < table.max() <= 0.05 for table in tables)


def test_the_sum_has_the_brackets_of_a_complete_tree():
    values = torch.randn(8, 1000)
    (a, b, c, d, e, f, g, h) = values
    expected = ((a + b) + (c + d)) + ((e + f) + (g + h))
    assert not torch.equal(expected, values.sum(0))
    assert torch.equal(pairwise(values), expected)
    halves = []
    for half in values.split(4):
        tree = TreeSum()
        for value in half:
            tree.add(value.clone())
        halves.append(tree.total())
    assert torch.equal(pairwise(torch.stack(halves)), expected)


def test_one_virtual_rank_gives_the_bits_of_a_plain_loop(glyph_store):
    ours, other = (stage_of(glyph_store, content_discrepancy=0.0) for _ in range(2))
    content, class_ = other.contents[0], other.class_
    for step in range(12):
        ours.step(step)
        epoch, at = divmod(step, 10)
        ids = permutation(160, 0, epoch)[16 * at : 16 * at + 16].long()
        classes, now = other.store.class_ids[ids], torch.tensor(step)
        content_code, class_code = content.gather(ids, now), class_.gather(classes, now)
        optimizer.set_learning_rate(other.adam, other.learning_rate(step))
        pixels = other.store.images(ids)
        other.graph(content_code, class_code, pixels)[0].backward()
        other.adam.step()
        other.adam.zero_grad()
        content.scatter_adam_(ids, content_code, now, unique=True)
        class_.scatter_adam_(classes, class_code, now)
    found, expected = ours.state(), other.state()
    assert len(found["optimizer"]) > 20
    for stage, tensors in ((ours, found), (other, expected)):
        tensors["content"] = stage.contents[0].state._asdict()
        tensors["class"] = stage.class_.state._asdict()
    for name, tensors in expected.items():
        for key, tensor in tensors.items():
            assert torch.equal(found[name][key], tensor), (name, key)


class Seen:
    """Runs one step in float64 and keeps the gradients of the networks and of the codes."""

    def __init__(self, store, virtual_ranks: int, ids: torch.Tensor, monkeypatch):
        stage = stage_of(store, virtual_ranks=virtual_ranks, content_discrepancy=1.0)
        stage.graph.double()
        start = torch.rand(160, 4, generator=torch.Generator().manual_seed(0)) - 0.5
        for shard, table in stage.contents.items():
            table.state.weight.copy_(start[shard::virtual_ranks])
        every = torch.arange(160)
        stage.discrepancy.remember(start, stage.store.class_ids, every, torch.tensor(0))
        content, classes, networks = [], [], []
        gather = LatentTable.gather

        def gathered(table, *arguments, **options):
            return gather(table, *arguments, **options).detach().double().requires_grad_()

        def applied(table, rows, grad, step, unique=False, by_row=None):
            (classes if table is stage.class_ else content).append(grad)

        monkeypatch.setattr(LatentTable, "gather", gathered)
        monkeypatch.setattr(LatentTable, "apply_", applied)
        monkeypatch.setattr(
            optimizer, "step", lambda _: networks.extend(p.grad for p in stage.gradients.parameters)
        )
        class_ids = stage.store.class_ids[ids]
        by_class = torch.stack(class_ids.sort(stable=True))
        scalars = stage.update(ids, class_ids, stage.steps[3], stage.store.images(ids), by_class)
        monkeypatch.undo()
        self.all = [torch.cat(content), torch.cat(classes), *networks, *scalars.values()]


def differ(glyph_store, monkeypatch) -> float:
    """Return the largest difference between a step with 4 virtual ranks and with 1."""
    ids = EpochSampler(160, 16, 0, whole(V)).image_ids(0)
    one, four = (Seen(glyph_store, count, ids, monkeypatch).all for count in (1, V))
    assert len(one) == len(four) > 10
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(one, four, strict=True))


def test_a_step_in_float64_does_not_depend_on_the_virtual_ranks(glyph_store, monkeypatch):
    assert differ(glyph_store, monkeypatch) < 1e-10


def local_noise(self, rows, step, noise_ids=None, noise=True, gather=LatentTable.gather):
    return gather(self, rows, step, noise=noise)


def no_division(self, scalars, backward=GradientSum.backward):
    backward(self, {**scalars, "loss": scalars["loss"] * self.group.shards.count})


@pytest.mark.parametrize(
    ("kind", "name", "broken"),
    [(LatentTable, "gather", local_noise), (GradientSum, "backward", no_division)],
)
def test_that_test_notices_faults(glyph_store, monkeypatch, kind, name, broken):
    with pytest.MonkeyPatch.context() as fault:
        fault.setattr(kind, name, broken)
        assert differ(glyph_store, monkeypatch) > 1e-3


def test_stage_2_of_other_virtual_ranks_reads_the_same_codes(glyph_store, tmp_path):
    latent = stage_of(glyph_store, virtual_ranks=V)
    for step in range(3):
        latent.step(step)
    path = snapshot.save(tmp_path, "latent", 3, latent.state(), latent.tables())
    expected = torch.empty(160, 4)
    for shard, table in latent.contents.items():
        expected[shard::V] = table.codes(3)
    for count in (1, 2, 8):
        mine = block(count, count // 2, count)
        wanted = saved_shards(mine.mine, count, V)
        tables = checkpoint.load(path, wanted).tables
        codes = stored_shards(tables, 3, latent.config, 160, mine, latent.device)
        assert {shard: code.tolist() for shard, code in codes.items()} == {
            shard: expected[shard::count].tolist() for shard in mine.mine
        }


def test_class_tables_beyond_memory_are_refused_with_both_figures(monkeypatch):
    monkeypatch.setattr("lord_fast.train.latent.free_memory", lambda device: 3_080_000)
    check_class_table(1000, 256, torch.device("cpu"))
    with pytest.raises(ValueError, match="3,080 bytes a class, and exchanges 1,032 bytes an image"):
        check_class_table(1001, 256, torch.device("cpu"))
