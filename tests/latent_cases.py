"""Cases that the tests of the latent kernels share: tables, rows, gradients, and dense Adam."""

import torch
from torch import Tensor


def table(n: int, dim: int, last: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A table in use: rows with moments of very different sizes, last steps in 0..last."""
    rng = torch.Generator().manual_seed(seed)
    size = 10 ** torch.empty(n, 1).uniform_(-9, 0, generator=rng)
    weight, exp_avg = (torch.randn(n, dim, generator=rng) for _ in range(2))
    exp_avg_sq = ((0.1 + torch.rand(n, dim, generator=rng)) * size) ** 2
    last_step = torch.randint(last + 1, (n,), generator=rng)
    return weight * 0.05, exp_avg * size, exp_avg_sq, last_step


def empty_table(start: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A table before the first step."""
    last_step = torch.zeros(len(start), dtype=torch.int64, device=start.device)
    return start.clone(), torch.zeros_like(start), torch.zeros_like(start), last_step


def clone(state):
    return tuple(tensor.clone() for tensor in state)


def some_rows(n: int, batch: int) -> Tensor:
    """Unsorted, with repeats, with the first and the last row."""
    rows = torch.randint(n, (batch,), generator=torch.Generator().manual_seed(batch))
    rows[: batch // 3] = n - 1
    rows[batch // 2 : batch // 2 + 2] = 0
    return rows


def gradient(codes: Tensor, step: int, sizes: Tensor) -> Tensor:
    """Depends on the code, so that an error would grow."""
    phase = torch.arange(codes.shape[1], dtype=codes.dtype, device=codes.device) + step
    return sizes.to(codes.dtype)[:, None] * (torch.sin(phase) + codes)


def touched_steps(n: int, batch: int, steps: tuple[int, ...], seed: int = 0, device="cpu"):
    """Rows and sizes of the gradients, from 1e-7 to 1, of the few steps that have a batch."""
    rng = torch.Generator().manual_seed(seed)
    return {
        step: (
            some_rows(n, batch).roll(step).to(device),
            10 ** torch.empty(batch).uniform_(-7, 0, generator=rng).to(device),
        )
        for step in steps
    }


def dense(start: Tensor, lr: Tensor, touched, adam, dtype: torch.dtype) -> Tensor:
    """torch.optim.Adam on the whole table over every step, most of which have no gradient."""
    weight = start.to(dtype, copy=True).requires_grad_()
    optimizer = torch.optim.Adam([weight], lr=1.0, betas=adam[:2], eps=adam.eps)
    for step, rate in enumerate(lr.tolist()):
        weight.grad = torch.zeros_like(weight)
        if step in touched:
            rows, sizes = touched[step]
            weight.grad.index_add_(0, rows, gradient(weight.detach()[rows], step, sizes))
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    return weight.detach()


def sparse(start: Tensor, lr: Tensor, touched, adam, gather, scatter_adam_) -> Tensor:
    """The same by the operators, with every row brought up to the last step at the end."""
    state = empty_table(start)
    for step, (rows, sizes) in touched.items():
        now = torch.tensor(step, device=start.device)
        codes = gather(*state, rows, lr, now, rows, 0.0, 0, *adam)
        scatter_adam_(*state, rows, gradient(codes, step, sizes), lr, now, *adam)
    every, now = torch.arange(len(start), device=start.device), torch.tensor(len(lr))
    return gather(*state, every, lr, now.to(start.device), every, 0.0, 0, *adam)
