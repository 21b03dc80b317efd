"""Tables, rows, gradients and dense Adam that the tests of the latent kernels share."""

import torch
from torch import Tensor

from lord_fast.kernels import Adam, reference
from lord_fast.model.schedule import cosine


def table(n: int, dim: int, last: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A table in mid-training, with moments of very different sizes and last steps in 0..last."""
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
    """Unsorted rows with repeats that include the first and the last row."""
    rows = torch.randint(n, (batch,), generator=torch.Generator().manual_seed(batch))
    rows[: batch // 3] = n - 1
    rows[batch // 2 : batch // 2 + 2] = 0
    return rows


def gradient(codes: Tensor, step: int, sizes: Tensor) -> Tensor:
    """A gradient that depends on the code, so that errors would grow from step to step."""
    phase = torch.arange(codes.shape[1], dtype=codes.dtype, device=codes.device) + step
    return sizes.to(codes.dtype)[:, None] * (torch.sin(phase) + codes)


def touched_steps(n: int, batch: int, steps: tuple[int, ...], seed: int = 0, device="cpu"):
    """Step -> rows and gradient sizes from 1e-7 to 1, for the few steps that have a batch."""
    rng = torch.Generator().manual_seed(seed)
    return {
        step: (
            some_rows(n, batch).roll(step).to(device),
            10 ** torch.empty(batch).uniform_(-7, 0, generator=rng).to(device),
        )
        for step in steps
    }


def dense(start: Tensor, lr: Tensor, touched, adam, dtype: torch.dtype) -> Tensor:
    """Run torch.optim.Adam on the whole table for every step. Most steps have no gradient."""
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
    """Run the same steps with the operators, then gather every row as of the last step."""
    state = empty_table(start)
    for step, (rows, sizes) in touched.items():
        now = torch.tensor(step, device=start.device)
        codes = gather(*state, rows, lr, now, rows, 0.0, 0, *adam)
        scatter_adam_(*state, rows, gradient(codes, step, sizes), lr, now, *adam)
    every, now = torch.arange(len(start), device=start.device), torch.tensor(len(lr))
    return gather(*state, every, lr, now.to(start.device), every, 0.0, 0, *adam)


def assert_close(ours, wanted):
    for a, b in zip(ours, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def assert_equals_reference(gather, scatter_adam_, dim: int, batch: int):
    """Run both operators on one batch and check that rows outside it stay unchanged.

    Returns:
        The table before, the arguments of the operators, the codes and the table after.
    """
    n, step, adam = 90, torch.tensor(400), Adam()
    state, lr, rows = table(n, dim, 400), cosine(3e-3, 1e-5, 500), some_rows(n, batch)
    codes = gather(*state, rows, lr, step, rows, 0.0, 0, *adam)
    assert codes.shape == (batch, dim)
    assert_close([codes], [reference.gather(*state, rows, lr, step, rows, 0.0, 0, *adam)])

    grad = 1e-3 * torch.randn(batch, dim, generator=torch.Generator().manual_seed(1))
    ours, wanted = clone(state), clone(state)
    scatter_adam_(*ours, rows, grad, lr, step, *adam)
    reference.scatter_adam_(*wanted, rows, grad, lr, step, *adam)
    assert_close(ours, wanted)
    others = ~torch.isin(torch.arange(n), rows)
    assert all(torch.equal(a[others], b[others]) for a, b in zip(ours, state, strict=True))
    return state, (rows, grad, lr, step), codes, ours


def assert_error_is_below_dense_float32(gather, scatter_adam_, dim: int, adam) -> None:
    """Assert that the error to float64 dense Adam is at most that of float32 dense Adam."""
    n, lr = 6, cosine(3e-3, 1e-5, 400)
    rng = torch.Generator().manual_seed(dim)
    start = torch.empty(n, dim).uniform_(-0.05, 0.05, generator=rng)
    touched = touched_steps(n, 4, (0, 2, 9, 30, 31, 200), seed=dim)
    ours = sparse(start, lr, touched, adam, gather, scatter_adam_)

    exact = dense(start, lr, touched, adam, torch.float64)
    own_error = (dense(start, lr, touched, adam, torch.float32) - exact).abs().max()
    assert (ours - exact).abs().max() <= own_error
    assert (exact - start).abs().max() > 1000 * own_error  # the table moved much further
