"""The free parameters of LORD: a row an image (content) or a class, as dense Adam would have it.

The codes are the leaves of the graph: `gather` returns a leaf tensor, the generator's loss
backpropagates to it, and its gradient goes to `scatter_adam_`.
"""

import torch
from torch import Tensor

from lord_fast import kernels
from lord_fast.memory import ask_for_huge_pages

INITIAL_RANGE = 0.05
CHUNK_ROWS = 65_536


class LatentTable:
    """A table of codes with its Adam state, updated at the cost of the batch, not of the table.

    Attributes:
        state: The four tensors, see `kernels.Table`.
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
        """Start from codes uniform in (-0.05, 0.05) and empty moments.

        Args:
            num_rows: Images or classes.
            dim: Length of a code.
            lr: Learning rate of every step, float32 [total_steps].
            adam: Adam's constants.
            seed: Of the initial codes and of the noise.
            std: Standard deviation of the Gaussian noise that `gather` adds.
            device: Where the table lives.
        """
        kernels.replay_terms(adam.beta1, adam.beta2)
        self.lr, self.adam, self.seed, self.std = lr.to(device), adam, seed, std
        self.state = _new_state(num_rows, dim, torch.device(device))
        start = torch.Generator().manual_seed(seed)
        codes = self.state.weight.cpu()
        self.state.weight.copy_(codes.uniform_(-INITIAL_RANGE, INITIAL_RANGE, generator=start))

    @torch.no_grad()
    def gather(self, rows: Tensor, step: Tensor, noise_ids: Tensor | None = None) -> Tensor:
        """Codes of a batch at `step`, with noise, as a leaf that requires grad.

        Args:
            rows: int64 [B].
            step: Updates done so far, int64 scalar on the table's device.
            noise_ids: Global ids that the noise depends on, int64 [B]; default: `rows`.

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
        self, rows: Tensor, codes: Tensor, step: Tensor, unique: bool = False
    ) -> None:
        """Update the rows of a batch with the gradients of their gathered codes.

        Args:
            rows: int64 [B]; may repeat, but for `unique`.
            codes: What `gather` returned for them, after the backward pass, [B, dim].
            step: Updates done so far, int64 scalar on the table's device.
            unique: A promise that no row repeats; see `kernels.scatter_adam_`.
        """
        assert codes.grad is not None
        kernels.scatter_adam_(
            self.state, rows, codes.grad, self.lr, step, adam=self.adam, unique=unique
        )

    @torch.no_grad()
    def codes(self, step: int, rows: Tensor | None = None) -> Tensor:
        """Rows as dense Adam would have them after `step` updates, without noise.

        Args:
            step: At least those rows' `last_step`.
            rows: int64 [B]; default: all.

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
        """The four tensors of the table, not copied."""
        return self.state._asdict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy the four tensors of `state_dict` into this table."""
        for name, mine in self.state._asdict().items():
            mine.copy_(state[name])


def _new_state(num_rows: int, dim: int, device: torch.device) -> kernels.Table:
    """Zeros; on the CPU the three parts of a row lie side by side.

    The rows of a batch lie anywhere in memory, and finding an address costs as much as reading
    what is there: one address a row instead of three.
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
