"""The latent tables of LORD, with one row per image (content) or per class.

`gather` returns the codes of a batch as a leaf tensor. The loss backpropagates to this leaf, and
`scatter_adam_` applies its gradient to the table. The result is that of dense Adam.
"""

import torch
from torch import Tensor

from lord_fast import kernels
from lord_fast.memory import ask_for_huge_pages

INITIAL_RANGE = 0.05
CHUNK_ROWS = 65_536


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
        """
        kernels.replay_terms(adam.beta1, adam.beta2)
        self.lr, self.adam, self.seed, self.std = lr.to(device), adam, seed, std
        self.state = _new_state(num_rows, dim, torch.device(device))
        start = torch.Generator().manual_seed(seed)
        codes = self.state.weight.cpu()
        self.state.weight.copy_(codes.uniform_(-INITIAL_RANGE, INITIAL_RANGE, generator=start))

    @torch.no_grad()
    def gather(self, rows: Tensor, step: Tensor, noise_ids: Tensor | None = None) -> Tensor:
        """The codes of a batch at `step`, with noise, as a leaf that requires grad.

        Args:
            rows: int64 [B].
            step: Number of updates done so far, int64 scalar on the table's device.
            noise_ids: Global ids that the noise depends on, int64 [B]. Defaults to `rows`.

        Returns:
            float32 [B, dim].
        """
        codes = kernels.gather(
            self.state, rows, self.lr, step,
            adam=self.adam, std=self.std, seed=self.seed, noise_ids=noise_ids,
        )  # fmt: skip
        return codes.requires_grad_()

    @torch.no_grad()
    def scatter_adam_(
        self,
        rows: Tensor,
        codes: Tensor,
        step: Tensor,
        unique: bool = False,
        by_row: Tensor | None = None,
    ) -> None:
        """Update the rows of a batch with the gradients of their gathered codes.

        Args:
            rows: int64 [B]. Rows may repeat unless `unique` is set.
            codes: The codes that `gather` returned for `rows`, after the backward pass, [B, dim].
            step: Number of updates done so far, int64 scalar on the table's device.
            unique: Set to True only if no row repeats, see `kernels.scatter_adam_`.
            by_row: The rows in ascending order and their positions, see `kernels.scatter_adam_`.
        """
        assert codes.grad is not None
        kernels.scatter_adam_(
            self.state, rows, codes.grad, self.lr, step,
            adam=self.adam, unique=unique, by_row=by_row,
        )  # fmt: skip

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

    def state_dict(self) -> dict[str, Tensor]:
        """The four tensors of the table, without copying them."""
        return self.state._asdict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy the four tensors of `state_dict` into this table."""
        for name, mine in self.state._asdict().items():
            mine.copy_(state[name])


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
