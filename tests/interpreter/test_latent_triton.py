"""Tests of the Triton operators in Triton's interpreter, on CPU tensors."""

import pytest
import torch
from latent_cases import (
    assert_equals_reference,
    assert_error_is_below_dense_float32,
    clone,
    table,
)
from triton.runtime import interpreter

from lord_fast.kernels import Adam, reference
from lord_fast.kernels.triton import gather, latent, scatter_adam_

ADAM = Adam()
DIMS = (1, 3, 16, 130, 256, 1024)
SEED = 2**40 + 5


@pytest.fixture(autouse=True)
def poisoned_empty(monkeypatch):
    """Fill new tensors with NaN, so that elements that a kernel does not write are seen."""
    monkeypatch.setattr(
        latent.torch, "empty", lambda *size, **kw: torch.full(size, torch.nan, **kw)
    )


@pytest.mark.parametrize("batch", [0, 1, 7, 128])
@pytest.mark.parametrize("dim", DIMS)
def test_equals_reference(dim, batch):
    assert_equals_reference(gather, scatter_adam_, dim, batch)


@pytest.mark.parametrize(
    ("dim", "adam"),
    [(dim, ADAM) for dim in DIMS]
    + [(16, Adam(0.9, 0.99)), (16, Adam(0.0, 0.999)), (16, Adam(eps=1e-3))],
)
def test_error_is_below_that_of_dense_float32_adam(dim, adam):
    assert_error_is_below_dense_float32(gather, scatter_adam_, dim, adam)


def test_repeats_are_summed_in_the_order_of_the_batch():
    """Uses more repeats than one unrolled iteration and sums that depend on their order."""
    rows = torch.tensor([3, 1, 3, 3, 1, 3, 3, 3, 1, 3, 3, 3])
    grad = torch.tensor([1e8, 2, 1, -1e8, 2, 3, 1e7, 0.25, 5, 0.25, -1e7, 1])[:, None].repeat(1, 5)
    ours = (*torch.zeros(3, 5, 5), torch.zeros(5, dtype=torch.int64))
    wanted = clone(ours)
    lr, step = torch.ones(3), torch.tensor(2)
    scatter_adam_(*ours, rows, grad, lr, step, *ADAM)
    reference.scatter_adam_(*wanted, rows, grad, lr, step, *ADAM)
    assert torch.equal(ours[1], wanted[1])
    assert ours[3].tolist() == [0, 3, 0, 3, 0]
    total = torch.tensor(0.0)
    for value in grad[rows == 3, 0]:
        total = total + value
    assert ours[1][3, 0] == 0.5 * total != 0.5 * grad[rows == 3, 0].sort().values.sum()


def test_unique_rows_need_no_sort(monkeypatch):
    state, lr, step = table(20, 16, 50), torch.full((60,), 1e-3), torch.tensor(55)
    rows, grad = torch.tensor([19, 4, 0, 7, 11]), torch.randn(5, 16)
    sorted_, unique = clone(state), clone(state)
    scatter_adam_(*sorted_, rows, grad, lr, step, *ADAM)
    monkeypatch.delattr(latent.torch, "sort")
    scatter_adam_(*unique, rows, grad, lr, step, *ADAM, unique=True)
    assert all(torch.equal(a, b) for a, b in zip(sorted_, unique, strict=True))


def test_rows_in_order_need_no_sort(monkeypatch):
    state, lr, step = table(20, 16, 50), torch.full((60,), 1e-3), torch.tensor(55)
    rows, grad = torch.tensor([4, 19, 4, 0, 4, 19]), torch.randn(6, 16)
    sorted_, given = clone(state), clone(state)
    by_row = torch.stack(torch.sort(rows, stable=True))
    scatter_adam_(*sorted_, rows, grad, lr, step, *ADAM)
    monkeypatch.delattr(latent.torch, "sort")
    scatter_adam_(*given, rows, grad, lr, step, *ADAM, by_row=by_row)
    assert all(torch.equal(a, b) for a, b in zip(sorted_, given, strict=True))


@pytest.mark.parametrize("dim", [3, 130])
def test_long_segments_equal_the_reference(dim, monkeypatch):
    """The segments end before, at and after the end of a tile. One row is not named."""
    tiles = []
    kernel = latent.scatter_adam_kernel

    class Spy:
        def __getitem__(self, grid):
            def launch(*arguments, **constants):
                tiles.append(constants["TILE"])
                return kernel[grid](*arguments, **constants)

            return launch

    monkeypatch.setattr(latent, "scatter_adam_kernel", Spy())
    counts = torch.tensor([1, 8, 0, 40, 111])
    rows = torch.arange(5).repeat_interleave(counts)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    # Sums of small integers are exact in any order.
    grad = torch.randint(-8, 9, (len(rows), dim)).float()
    state, lr, step = table(5, dim, 50), torch.full((60,), 1e-3), torch.tensor(55)
    ours, again, wanted = clone(state), clone(state), clone(state)
    scatter_adam_(*ours, rows, grad, lr, step, *ADAM)
    scatter_adam_(*again, rows, grad, lr, step, *ADAM)
    reference.scatter_adam_(*wanted, rows, grad, lr, step, *ADAM)
    assert tiles == [max(4, 1024 // max(128, 256 * (dim > 128)))] * 2
    for a, b, c in zip(ours, wanted, again, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
        assert torch.equal(a, c)


def test_gather_does_not_write():
    state, rows = table(9, 16, 50), torch.tensor([1, 8, 1])
    before = clone(state)
    gather(*state, rows, torch.ones(60), torch.tensor(55), rows, 1.0, SEED, *ADAM)
    assert all(torch.equal(a, b) for a, b in zip(before, state, strict=True))


@pytest.mark.parametrize("dim", DIMS)
def test_noise_equals_reference(dim):
    """Uses ids and steps beyond 32 bits. The codes are 0, so the output is the noise."""
    state = (*torch.zeros(3, 3, dim), torch.full((3,), 2**32 + 7))
    rows, ids = torch.tensor([2, 0, 2, 1]), torch.tensor([5, 2**33 + 1, 5, 2**40])
    step = torch.tensor(2**32 + 7)
    ours = gather(*state, rows, torch.ones(1), step, ids, 2.0, SEED, *ADAM)
    wanted = 2 * reference.noise(ids, dim, step, SEED)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=2e-6)
    assert torch.equal(ours[0], ours[2])
    small = gather(*state, rows, torch.ones(1), step, ids, 2.0, 7, *ADAM)
    torch.testing.assert_close(small, 2 * reference.noise(ids, dim, step, 7), rtol=0, atol=2e-6)


def test_offsets_beyond_2_to_the_31(monkeypatch):
    """Uses the last row of tables with 2^31 + 2,048 elements, most of which are never touched."""
    monkeypatch.undo()
    # After a launch this method would copy all memory of the tensors.
    monkeypatch.setattr(interpreter.GridExecutor, "_restore_args_dev", lambda *args: None)
    n, dim = 2**21 + 2, 1024
    try:
        huge = [torch.empty(n, dim) for _ in range(3)]
    except RuntimeError as error:
        pytest.skip(f"no address space for three tables of 8.6 GB: {error}")
    state, rows = table(2, dim, 50), torch.tensor([n - 1, 0])
    for big, small in zip(huge, state, strict=False):
        big[rows] = small
    last_step = torch.zeros(n, dtype=torch.int64)
    last_step[rows] = state[3]
    near, lr, step = torch.arange(2), torch.full((60,), 1e-3), torch.tensor(55)

    codes = gather(*huge, last_step, rows, lr, step, rows, 0.0, 0, *ADAM)
    assert torch.equal(codes, gather(*state, near, lr, step, near, 0.0, 0, *ADAM))
    scatter_adam_(*huge, last_step, rows, codes, lr, step, *ADAM)
    scatter_adam_(*state, near, codes, lr, step, *ADAM)
    for big, small in zip((*huge, last_step), state, strict=True):
        assert torch.equal(big[rows], small)


def test_unsupported_tables_are_refused():
    rows, lr, step = torch.arange(2), torch.ones(3), torch.tensor(0)
    for state in (table(2, 1025, 0), tuple(tensor.double() for tensor in table(2, 4, 0))):
        with pytest.raises(ValueError, match="--kernels reference"):
            gather(*state, rows, lr, step, rows, 0.0, 0, *ADAM)
