"""The latent tables of LORD, with one row per image (content) or per class.

`gather` returns the codes of a batch as a leaf tensor. The loss backpropagates to this leaf, and
`scatter_adam_` applies its gradient to the table. The result is that of dense Adam.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from lord_fast import kernels
from lord_fast.memory import ask_for_huge_pages

INITIAL_RANGE = 0.05
CHUNK_ROWS = 65_536
INITIAL_ROWS = 4_096
"""Number of rows whose initial codes are drawn at a time. Larger blocks fragment the memory."""
INITIAL_CODES = 2
"""First word of the keys of the initial codes of virtual ranks."""


class LatentTable:
    """A table of codes with its Adam state. A step costs as much as the batch, not the table.

    Attributes:
        state: The four tensors of the table, see `kernels.Table`.
        lr: Learning rate of every step, float32 [total_steps].
    """

    def __init__(
        self,
        num_rows: int,
        dim: int,
        lr: Tensor,
        *,
        adam: kernels.Adam,
        seed: int,
        std: float = 0.0,
        device: torch.device | str = "cpu",
        shard: int = 0,
    ):
        """Initialize the codes uniformly in (-0.05, 0.05) and the moments with zeros.

        Args:
            num_rows: Number of images or classes.
            dim: Length of a code.
            lr: Learning rate of every step, float32 [total_steps].
            adam: Adam's constants.
            seed: Seed of the initial codes and of the noise.
            std: Standard deviation of the Gaussian noise that `gather` adds.
            device: Device of the table.
            shard: Virtual rank whose images the rows are. Each has other initial codes.
        """
        kernels.replay_terms(adam.beta1, adam.beta2)
        self.lr, self.adam, self.seed, self.std = lr.to(device), adam, seed, std
        self.state = _new_state(num_rows, dim, torch.device(device))
        self.shard = shard
        _initialize(self.state.weight, seed, shard)

    @property
    def num_rows(self) -> int:
        """Number of images or classes."""
        return len(self.state.weight)

    @property
    def dim(self) -> int:
        """Length of a code."""
        return self.state.weight.shape[1]

    @property
    def last_step(self) -> Tensor:
        """Step of each row's last update, 0 before the first, int64 [num_rows]."""
        return self.state.last_step

    def load(self, step: int, rows_of: Callable[[int], Tensor]) -> None:
        """See `StreamedTable.load`. All rows are on the device already."""

    def store(self, step: int) -> None:
        """See `StreamedTable.store`."""

    def close(self) -> None:
        """See `StreamedTable.close`."""

    @torch.no_grad()
    def gather(
        self, rows: Tensor, step: Tensor, noise_ids: Tensor | None = None, noise: bool = True
    ) -> Tensor:
        """The codes of a batch at `step`, as a leaf that requires grad.

        Args:
            rows: int64 [B].
            step: Number of updates done so far, int64 scalar on the table's device.
            noise_ids: Global ids that the noise depends on, int64 [B]. Defaults to `rows`.
            noise: Whether to add the noise.

        Returns:
            float32 [B, dim].
        """
        std = self.std if noise else 0.0
        codes = kernels.gather(
            self.state, rows, self.lr, step,
            adam=self.adam, std=std, seed=self.seed, noise_ids=noise_ids,
        )  # fmt: skip
        return codes.requires_grad_()

    @torch.no_grad()
    def scatter_adam_(
        self, rows: Tensor, codes: Tensor, step: Tensor, unique: bool = False
    ) -> None:
        """Update the rows of a batch with the gradients of their gathered codes.

        Args:
            rows: int64 [B]. Rows may repeat unless `unique` is set.
            codes: The codes that `gather` returned for `rows`, after the backward pass, [B, dim].
            step: Number of updates done so far, int64 scalar on the table's device.
            unique: Set to True only if no row repeats, see `kernels.scatter_adam_`.
        """
        assert codes.grad is not None
        self.apply_(rows, codes.grad, step, unique)

    @torch.no_grad()
    def apply_(
        self,
        rows: Tensor,
        grad: Tensor,
        step: Tensor,
        unique: bool = False,
        by_row: Tensor | None = None,
    ) -> None:
        """Do what `scatter_adam_` does with gradients [B, dim] from anywhere.

        `by_row` may hold the rows in ascending order, see `kernels.scatter_adam_`.
        """
        kernels.scatter_adam_(
            self.state, rows, grad, self.lr, step, adam=self.adam, unique=unique, by_row=by_row
        )

    @torch.no_grad()
    def codes(self, step: int, rows: Tensor | None = None) -> Tensor:
        """The codes as dense Adam would have them after `step` updates, without noise.

        Args:
            step: Number of updates, at least the `last_step` of every row.
            rows: int64 [B]. Defaults to all rows.

        Returns:
            float32 [B, dim].
        """
        device = self.state.weight.device
        rows = torch.arange(len(self.state.weight), device=device) if rows is None else rows
        now = torch.tensor(step, device=device)
        pieces = rows.split(CHUNK_ROWS)
        return torch.cat(
            [kernels.gather(self.state, piece, self.lr, now, adam=self.adam) for piece in pieces]
        )

    def read_rows(self, rows: Tensor) -> dict[str, Tensor]:
        """Copy rows to the host, see `run.segments.Shard`.

        Args:
            rows: int64 [k], on any device.

        Returns:
            weight, exp_avg and exp_avg_sq, float32 [k, dim], and last_step, int64 [k].
        """
        rows = rows.to(self.state.last_step.device)
        return {name: mine[rows].cpu() for name, mine in self.state._asdict().items()}

    def write_rows(self, rows: Tensor, values: Mapping[str, Tensor]) -> None:
        """Set rows to what `read_rows` returned for them.

        Args:
            rows: int64 [k], on any device, without repetitions.
            values: The four tensors, on any device.
        """
        device = self.state.last_step.device
        for name, mine in self.state._asdict().items():
            mine.index_copy_(0, rows.to(device), values[name].to(device))

    def reset(self) -> None:
        """Set all rows to their initial values."""
        for mine in self.state:
            mine.zero_()
        _initialize(self.state.weight, self.seed, self.shard)


class StoredCodes:
    """The codes of a saved table after some updates, without its moments.

    They are those of `LatentTable.codes` in a third of the memory.

    Attributes:
        codes: float32 [num_rows, dim].
    """

    def __init__(
        self, num_rows: int, dim: int, lr: Tensor, step: int, *, adam: kernels.Adam, seed: int,
        device: torch.device | str = "cpu", shard: int = 0, into: Tensor | None = None,
    ):  # fmt: skip
        """Begin with the initial codes.

        Args:
            num_rows: Number of images or classes.
            dim: Length of a code.
            lr: Learning rate of every step, float32 [total_steps].
            step: Number of updates.
            adam: Adam's constants.
            seed: Seed of the initial codes.
            device: Device of the codes.
            shard: Virtual rank whose images the rows are.
            into: Memory for the codes, float32 [num_rows, dim] on the device.
        """
        self.lr, self.adam = lr.to(device), adam
        self.step = torch.tensor(step, device=device)
        self.codes = torch.empty(num_rows, dim, device=device) if into is None else into
        _initialize(self.codes, seed, shard)

    @torch.no_grad()
    def write_rows(self, rows: Tensor, values: Mapping[str, Tensor]) -> None:
        """Set the codes of rows, see `LatentTable.write_rows`."""
        device = self.codes.device
        part = kernels.Table(**{name: value.to(device) for name, value in values.items()})
        every = torch.arange(len(rows), device=device)
        codes = kernels.gather(part, every, self.lr, self.step, adam=self.adam)
        self.codes.index_copy_(0, rows.to(device), codes)


def _initialize(weight: Tensor, seed: int, shard: int) -> None:
    """Draw the initial codes on the CPU, so that they are the same on every device."""
    blocks = initial_codes(len(weight), weight.shape[1], seed, shard)
    for part, codes in zip(weight.split(INITIAL_ROWS), blocks, strict=True):
        part.copy_(codes)


def initial_codes(num_rows: int, dim: int, seed: int, shard: int) -> Iterator[Tensor]:
    """Yield the initial codes of a table in blocks of `INITIAL_ROWS` rows, float32 [k, dim].

    Every virtual rank after the first draws from a stream of its own.
    """
    start = torch.Generator().manual_seed(seed)
    key = [INITIAL_CODES, seed & 0xFFFFFFFF, seed >> 32, shard]
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    for row in range(0, num_rows, INITIAL_ROWS):
        codes = torch.empty(min(INITIAL_ROWS, num_rows - row), dim)
        if shard == 0:
            yield codes.uniform_(-INITIAL_RANGE, INITIAL_RANGE, generator=start)
        else:
            drawn = torch.from_numpy(generator.random(codes.shape, dtype=np.float32))
            yield drawn.mul_(2 * INITIAL_RANGE).sub_(INITIAL_RANGE)


def _new_state(num_rows: int, dim: int, device: torch.device) -> kernels.Table:
    """Zeros. On the CPU, weight and moments of a row are adjacent in memory.

    A batch reads random rows, and looking up the page of an address costs as much as reading a row.
    With adjacent parts a row needs one lookup instead of three.
    """
    last_step = torch.empty(num_rows, dtype=torch.int64, device=device)
    if device.type == "cpu":
        rows = torch.empty(num_rows, 3, dim)
        ask_for_huge_pages(rows)
        ask_for_huge_pages(last_step)
        weight, exp_avg, exp_avg_sq = rows.zero_().unbind(1)
    else:
        weight, exp_avg, exp_avg_sq = torch.zeros(3, num_rows, dim, device=device).unbind(0)
    return kernels.Table(weight, exp_avg, exp_avg_sq, last_step.zero_())
