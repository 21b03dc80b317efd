"""Tests of the Triton operators that need a real GPU.

They cover what the interpreter and the offline gate cannot show. The operators must equal the
reference and dense Adam, give the same bits on every run, be capturable in a CUDA graph and use
the expected number of launches. Run them with `python -m pytest tests/test_latent_cuda.py`.
"""

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs a GPU (CUDA)", allow_module_level=True)
pytest.importorskip("triton", reason="CUDA is there, but Triton is not installed")

from latent_cases import clone, dense, some_rows, sparse, table, touched_steps
from torch.profiler import ProfilerActivity, profile

from lord_fast.kernels import Adam, reference
from lord_fast.kernels.triton import gather, scatter_adam_
from lord_fast.model.schedule import cosine

ADAM = Adam()
DIMS = (1, 3, 16, 130, 256, 1024)
SEED = 2**40 + 5


def on_gpu(tensors):
    return tuple(tensor.cuda() for tensor in tensors)


@pytest.mark.parametrize("batch", [0, 1, 7, 128, 4096])
@pytest.mark.parametrize("dim", DIMS)
def test_equals_reference(dim, batch):
    n, step, lr = 5000, torch.tensor(400), cosine(3e-3, 1e-5, 500)
    state, rows = table(n, dim, 400), some_rows(n, batch)
    grad = 1e-3 * torch.randn(batch, dim, generator=torch.Generator().manual_seed(1))
    ours, gpu = on_gpu(state), on_gpu((rows, lr, step))
    codes = gather(*ours, *gpu, gpu[0], 0.0, 0, *ADAM)
    wanted = reference.gather(*state, rows, lr, step, rows, 0.0, 0, *ADAM)
    torch.testing.assert_close(codes.cpu(), wanted, rtol=1e-6, atol=1e-8)

    scatter_adam_(*ours, gpu[0], grad.cuda(), *gpu[1:], *ADAM)
    reference.scatter_adam_(*state, rows, grad, lr, step, *ADAM)
    for a, b in zip(ours, state, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dim", DIMS)
def test_noise_equals_reference(dim):
    ids, step = torch.arange(1000) * 2**31, torch.tensor(2**32 + 7)
    state = on_gpu((*torch.zeros(3, 1000, dim), torch.full((1000,), 2**32 + 7)))
    rows, lr, now, noise_ids = on_gpu((torch.arange(1000), torch.ones(1), step, ids))
    ours = gather(*state, rows, lr, now, noise_ids, 1.0, SEED, *ADAM)
    torch.testing.assert_close(ours.cpu(), reference.noise(ids, dim, step, SEED), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("adam", [ADAM, Adam(0.9, 0.99), Adam(0.0, 0.999), Adam(eps=1e-3)])
def test_error_is_below_that_of_dense_float32_adam(dim, adam):
    n, lr = 50, cosine(3e-3, 1e-5, 1500)
    start = torch.empty(n, dim).uniform_(-0.05, 0.05).cuda()
    steps = (*range(0, 200, 3), *range(200, 1500, 37))
    touched = touched_steps(n, 16, steps, device="cuda")
    ours = sparse(start, lr.cuda(), touched, adam, gather, scatter_adam_)
    exact = dense(start, lr, touched, adam, torch.float64)
    own_error = (dense(start, lr, touched, adam, torch.float32) - exact).abs().max()
    assert (ours - exact).abs().max() <= own_error
    assert (exact - start).abs().max() > 1000 * own_error  # the table moved much further


def inputs(n: int, dim: int, batch: int, rows: torch.Tensor | None = None):
    """A table in mid-training, rows, gradients, learning rates and the step, all on the GPU."""
    rows = some_rows(n, batch) if rows is None else rows
    grad = torch.randn(batch, dim, generator=torch.Generator().manual_seed(2))
    return on_gpu(table(n, dim, 400)), *on_gpu((rows, grad, cosine(3e-3, 1e-5, 500))), on_step(400)


def on_step(step: int) -> torch.Tensor:
    return torch.tensor(step, device="cuda")


@pytest.mark.parametrize("dim", [64, 256, 1024])
def test_same_bits_every_run(dim):
    state, rows, grad, lr, step = inputs(40, dim, 2048)

    def run():
        codes = gather(*state, rows, lr, step, rows, 1.0, SEED, *ADAM)
        updated = clone(state)
        scatter_adam_(*updated, rows, grad, lr, step, *ADAM)
        return codes, *updated

    first = run()
    for _ in range(30):
        assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))


@pytest.mark.parametrize("unique", [True, False])
def test_graph_replays_over_changing_steps_and_rows(unique):
    n, dim, batch = 1000, 128, 64
    state, rows, grad, lr, step = inputs(n, dim, batch, torch.randperm(n)[:batch])
    eager = clone(state)

    def update(tables):
        codes = gather(*tables, rows, lr, step, rows, 1.0, SEED, *ADAM)
        scatter_adam_(*tables, rows, grad * codes, lr, step, *ADAM, unique=unique)
        return codes

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        update(clone(state))  # compiles the kernels, which must not happen during the capture
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = update(state)

    for now in range(400, 440):
        picked = torch.randperm(n)[:batch] if unique else torch.randint(n, (batch,))
        rows.copy_(picked)
        step.fill_(now)
        graph.replay()
        codes = update(eager)
        assert torch.equal(codes, captured)
        assert all(torch.equal(a, b) for a, b in zip(state, eager, strict=True))


def launches(function) -> int:
    function()  # compiles the kernels
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        function()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in seen.events())


def test_launches_of_a_step():
    state, rows, grad, lr, step = inputs(1000, 128, 64, torch.randperm(1000)[:64])

    def update(unique: bool):
        gather(*state, rows, lr, step, rows, 1.0, SEED, *ADAM)
        scatter_adam_(*state, rows, grad, lr, step, *ADAM, unique=unique)

    assert launches(lambda: update(unique=True)) == 2
    sort = launches(lambda: torch.sort(rows, stable=True))
    assert launches(lambda: update(unique=False)) - sort == 2
    by_row = torch.stack(torch.sort(rows, stable=True))

    def in_order():
        scatter_adam_(*state, rows, grad, lr, step, *ADAM, by_row=by_row)

    assert launches(in_order) == 1


def test_offsets_beyond_2_to_the_31():
    n, dim = 2**21 + 2, 1024
    if torch.cuda.mem_get_info()[0] < 30 * 2**30:
        pytest.skip("CUDA: less than 30 GiB of free GPU memory")
    small, rows, near = (
        on_gpu(table(2, dim, 50)),
        *on_gpu((torch.tensor([n - 1, 0]), torch.arange(2))),
    )
    huge = [
        torch.empty(n, *tensor.shape[1:], dtype=tensor.dtype, device="cuda") for tensor in small
    ]
    for big, tensor in zip(huge, small, strict=True):
        big[rows] = tensor
    lr, step = torch.full((60,), 1e-3, device="cuda"), on_step(55)
    codes = gather(*huge, rows, lr, step, rows, 0.0, 0, *ADAM)
    assert torch.equal(codes, gather(*small, near, lr, step, near, 0.0, 0, *ADAM))
    scatter_adam_(*huge, rows, codes, lr, step, *ADAM)
    scatter_adam_(*small, near, codes, lr, step, *ADAM)
    assert all(torch.equal(big[rows], tensor) for big, tensor in zip(huge, small, strict=True))
