"""A latent table as four plain tensors, and checkpoints as plain tensors, to compare them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lord_fast.run import checkpoint
from lord_fast.run.segments import PARTS
from lord_fast.run.tensors import State


class PlainTable:
    """A table for checkpoints. Its initial values are zeros unless `seed` is given."""

    def __init__(self, num_rows: int, dim: int, seed: int | None = None):
        self.num_rows, self.dim, self.seed = num_rows, dim, seed
        self.reset()

    def reset(self) -> None:
        size = (self.num_rows, self.dim)
        self.weight, self.exp_avg, self.exp_avg_sq = (torch.zeros(size) for _ in range(3))
        if self.seed is not None:
            self.weight.normal_(generator=torch.Generator().manual_seed(self.seed))
        self.last_step = torch.zeros(self.num_rows, dtype=torch.int64)

    def read_rows(self, rows: Tensor) -> dict[str, Tensor]:
        return {part: getattr(self, part)[rows] for part in PARTS}

    def write_rows(self, rows: Tensor, values: Mapping[str, Tensor]) -> None:
        for part in PARTS:
            getattr(self, part)[rows] = values[part]

    def update(self, rows: Tensor, step: int) -> None:
        """Change rows as a training step would. The new values depend on the old ones."""
        self.weight[rows] += 1 + step
        self.exp_avg[rows] -= 0.5 * self.weight[rows]
        self.exp_avg_sq[rows] += self.weight[rows].square()
        self.last_step[rows] = step

    def everything(self) -> dict[str, Tensor]:
        return self.read_rows(torch.arange(self.num_rows))


def state_of(path: Path) -> State:
    """Read a checkpoint. Rows of tables that were never updated are zeros."""
    found = checkpoint.load(path)
    state = dict(found.state)
    for name, saved in found.tables.items():
        shards = {v: PlainTable(rows, saved.dim) for v, rows in enumerate(saved.rows)}
        saved.load_into(shards)
        parts = [shard.everything() for shard in shards.values()]
        state[name] = {part: torch.cat([shard[part] for shard in parts]) for part in PARTS}
    return state


def assert_same(one: State, other: State) -> None:
    """Check that two states are bit for bit the same."""
    assert set(one) == set(other)
    for namespace, tensors in one.items():
        assert set(tensors) == set(other[namespace]), namespace
        for name, tensor in tensors.items():
            assert torch.equal(tensor, other[namespace][name]), f"{namespace}/{name}"
