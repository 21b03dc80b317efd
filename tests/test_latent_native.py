"""Tests of the C++ operators, on every instruction set that this machine supports."""

import math
import mmap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from latent_cases import (
    assert_close,
    assert_equals_reference,
    assert_error_is_below_dense_float32,
    clone,
    empty_table,
    some_rows,
    table,
)

from lord_fast.kernels import Adam, native, reference
from lord_fast.kernels.native import gather, scatter_adam_
from lord_fast.model.latent import LatentTable
from lord_fast.model.schedule import cosine

ADAM = Adam()
DIMS = (1, 3, 16, 130, 256, 1024)
SEED = 2**40 + 5
MAP_NORESERVE = 0x4000


def runnable() -> list[str]:
    """The instruction sets that this build and this machine support."""
    native.load()
    best = native.instructions()
    found = [name for name in ("baseline", "avx2", "avx512") if native.use_instructions(name)]
    native.use_instructions(best)
    return found


@pytest.fixture(autouse=True, params=runnable())
def instructions(request):
    before = native.instructions()
    native.use_instructions(request.param)
    assert native.instructions() == request.param
    yield request.param
    native.use_instructions(before)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def assert_equal(ours, wanted):
    for a, b in zip(ours, wanted, strict=True):
        assert torch.equal(a, b)


def side_by_side(state):
    """The same table in LatentTable's CPU layout, with weight and moments of a row adjacent."""
    return (*torch.stack(state[:3], 1).unbind(1), state[3].clone())


@pytest.mark.parametrize("batch", [0, 1, 7, 128])
@pytest.mark.parametrize("dim", DIMS)
def test_equals_reference(dim, batch):
    state, inputs, codes, ours = assert_equals_reference(gather, scatter_adam_, dim, batch)
    rows, grad, lr, step = inputs
    neighbours = side_by_side(state)
    assert torch.equal(codes, gather(*neighbours, rows, lr, step, rows, 0.0, 0, *ADAM))
    scatter_adam_(*neighbours, rows, grad, lr, step, *ADAM)
    assert_equal(neighbours, ours)


@pytest.mark.parametrize(
    ("dim", "adam"),
    [(dim, ADAM) for dim in DIMS]
    + [(16, Adam(0.9, 0.99)), (16, Adam(0.0, 0.999)), (16, Adam(eps=1e-3))],
)
def test_error_is_below_that_of_dense_float32_adam(dim, adam):
    assert_error_is_below_dense_float32(gather, scatter_adam_, dim, adam)


@pytest.mark.parametrize("missed", [1, 2, 7, 40])
@pytest.mark.parametrize("last", [0, 1, 10, 100, 1000])
def test_replay_on_both_sides_of_its_bound(last, missed):
    """One row holds second moments from far below to far above epsilon."""
    step, lr = torch.tensor(last + missed), cosine(1e-3, 1e-5, last + missed)
    root = torch.logspace(-13, 1, 500)[None]
    state = torch.zeros_like(root), torch.full_like(root, 1e-3), root.square()
    last_step = torch.tensor([last])
    row = torch.zeros(1, dtype=torch.int64)
    ours = gather(*state, last_step, row, lr, step, row, 0.0, 0, *ADAM)
    wide = [tensor.double() for tensor in state]
    exact = reference.replay(*wide, last_step, lr.double(), step, *ADAM)[0]
    torch.testing.assert_close(ours.double(), exact, rtol=1e-6, atol=0)


def test_elements_without_moments_stay():
    """Both moments of a dead input are 0, so its movement is 0 / (0 + epsilon)."""
    state = (*(torch.zeros(2, 20) for _ in range(3)), torch.zeros(2, dtype=torch.int64))
    rows = torch.tensor([1])
    lr, step = torch.ones(50), torch.tensor(40)
    assert gather(*state, rows, lr, step, rows, 0.0, 0, *ADAM).eq(0).all()


def test_a_row_that_missed_more_than_2_to_the_24_steps():
    total = 2**24 + 10
    lr, step, rows = torch.full((total,), 1e-3), torch.tensor(total), torch.tensor([0, 1])
    *moments, _ = table(2, 5, 1)
    state = (*moments, torch.tensor([0, total - 40]))
    wanted = reference.gather(*state, rows, lr, step, rows, 0.0, 0, *ADAM)
    assert_close([gather(*state, rows, lr, step, rows, 0.0, 0, *ADAM)], [wanted])


@pytest.mark.parametrize(("n", "batch"), [(5, 100), (5000, 4000), (2**23, 4000)])
def test_repeats_are_summed_in_the_order_of_the_batch(n, batch):
    """The float32 sums depend on their order. Small and large batches use different sorts."""
    rng = torch.Generator().manual_seed(3)
    rows = torch.randint(n, (batch,), generator=rng)
    rows[1::3] = n - 1
    grad = 10 ** torch.empty(batch).uniform_(-4, 8, generator=rng)
    wanted = sums(rows, grad)
    assert wanted != sums(rows.flip(0), grad.flip(0))
    ours = [no_memory((n, 1), torch.float32) for _ in range(3)]
    ours.append(no_memory((n,), torch.int64))
    scatter_adam_(*ours, rows, grad[:, None], torch.ones(3), torch.tensor(2), *ADAM)
    assert {row: 2 * ours[1][row, 0].item() for row in wanted} == wanted
    assert ours[3][rows].eq(3).all()


def sums(rows, values) -> dict[int, float]:
    """The float32 sum of each row's values, added in order."""
    found: dict[int, np.float32] = {}
    for row, value in zip(rows.tolist(), values.numpy(), strict=True):
        found[row] = found.get(row, np.float32(0)) + value
    return {row: float(total) for row, total in found.items()}


def test_unique_is_ignored_if_a_row_repeats():
    state, lr, step = table(20, 16, 50), torch.full((60,), 1e-3), torch.tensor(55)
    rows, grad = torch.tensor([19, 4, 19, 0]), torch.randn(4, 16)
    plain, unique = clone(state), clone(state)
    scatter_adam_(*plain, rows, grad, lr, step, *ADAM)
    scatter_adam_(*unique, rows, grad, lr, step, *ADAM, unique=True)
    assert_equal(plain, unique)


@pytest.mark.parametrize("dim", DIMS)
def test_noise_equals_reference(dim):
    """Uses ids and steps beyond 32 bits. The codes are 0, so the output is the noise."""
    state = (*torch.zeros(3, 3, dim), torch.full((3,), 2**32 + 7))
    rows, ids = torch.tensor([2, 0, 2, 1]), torch.tensor([5, 2**33 + 1, 5, 2**40])
    step, lr = torch.tensor(2**32 + 7), no_memory((2**32 + 8,), torch.float32)
    for seed in (SEED, 7):
        ours = gather(*state, rows, lr, step, ids, 1.0, seed, *ADAM)
        wanted = reference.noise(ids, dim, step, seed)
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-6)
        assert torch.equal(ours[0], ours[2])


def test_noise_equals_reference_in_its_tails():
    """A million values cover radii up to about 5 and all angles."""
    ids, step = torch.arange(1000), torch.tensor(5)
    state = (*torch.zeros(3, 1000, 1000), torch.zeros(1000, dtype=torch.int64))
    ours = gather(*state, ids, torch.ones(5), step, ids, 1.0, SEED, *ADAM)
    wanted = reference.noise(ids, 1000, step, SEED)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-6)
    assert ours.abs().max() > 4.5


def test_noise_known_answer():
    """Applies Box-Muller in float64 to Random123's test vector for counter 0 and key 0."""
    words = (0x6627E8D5, 0xE169C58D), (0xBC57AC4C, 0x9B00DBD8)
    wanted = []
    for a, b in words:
        radius = math.sqrt(-2 * math.log(((a >> 9) + 0.5) / 2**23))
        angle = 2 * math.pi * (b >> 8) / 2**24
        wanted += [radius * math.cos(angle), radius * math.sin(angle)]
    state = (*torch.zeros(3, 1, 4), torch.zeros(1, dtype=torch.int64))
    row = torch.zeros(1, dtype=torch.int64)
    ours = gather(*state, row, torch.ones(1), torch.tensor(0), row, 1.0, 0, *ADAM)
    torch.testing.assert_close(ours[0].double(), torch.tensor(wanted).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dim", [3, 130, 1024])
def test_any_number_of_threads_gives_the_same_bits(dim, threads):
    n, batch, step, lr = 700, 1000, torch.tensor(400), cosine(3e-3, 1e-5, 500)
    state, rows = table(n, dim, 400), some_rows(n, batch)
    grad = torch.randn(batch, dim, generator=torch.Generator().manual_seed(1))

    def run(count):
        threads(count)
        updated = clone(state)
        scatter_adam_(*updated, rows, grad, lr, step, *ADAM)
        return gather(*state, rows, lr, step, rows, 1.0, SEED, *ADAM), *updated

    one = run(1)
    for count in (2, 3, 8, 2, 8):
        assert_equal(run(count), one)


def test_concurrent_callers_get_the_same_results(threads):
    n, dim, batch, step, lr = 300, 130, 256, torch.tensor(400), cosine(3e-3, 1e-5, 500)
    rows, grad = some_rows(n, batch), torch.randn(batch, dim)

    def run(seed):
        threads(3)  # PyTorch keeps this setting per calling thread
        state = table(n, dim, 400, seed)
        for _ in range(20):
            codes = gather(*state, rows, lr, step, rows, 1.0, seed, *ADAM)
        scatter_adam_(*state, rows, grad, lr, step, *ADAM)
        return codes, *state

    with ThreadPoolExecutor(4) as pool:
        for seed, found in enumerate(pool.map(run, range(12))):
            assert_equal(found, run(seed))


@pytest.mark.parametrize("dim", DIMS)
def test_gather_writes_the_whole_output_and_nothing_outside_it(dim, monkeypatch):
    state, rows = table(9, dim, 50), some_rows(9, 7)
    memory = torch.full((7 * dim + 64,), torch.nan)
    monkeypatch.setattr(
        torch.Tensor, "new_empty", lambda self, *shape: memory[32 : 32 + 7 * dim].view(shape)
    )
    codes = gather(*state, rows, torch.ones(60), torch.tensor(55), rows, 1.0, SEED, *ADAM)
    monkeypatch.undo()
    assert codes.data_ptr() == memory[32:].data_ptr()
    assert codes.isfinite().all()
    assert memory[:32].isnan().all()
    assert memory[32 + 7 * dim :].isnan().all()


def test_gather_does_not_write_the_table():
    state, rows = table(9, 16, 50), torch.tensor([1, 8, 1])
    before = clone(state)
    gather(*state, rows, torch.ones(60), torch.tensor(55), rows, 1.0, SEED, *ADAM)
    assert_equal(state, before)


def no_memory(shape, dtype) -> torch.Tensor:
    """Zeros that reserve addresses but use no memory until they are written."""
    size = math.prod(shape) * dtype.itemsize
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    return torch.frombuffer(mmap.mmap(-1, size, flags=flags), dtype=dtype).view(shape)


def test_offsets_beyond_2_to_the_31():
    """Uses the first and the last row of tables with 2^31 + 2,048 elements."""
    n, dim = 2**21 + 2, 1024
    shapes = [(n, dim)] * 3 + [(n,)]
    small, rows, near = table(2, dim, 50), torch.tensor([n - 1, 0]), torch.arange(2)
    huge = [no_memory(shape, tensor.dtype) for shape, tensor in zip(shapes, small, strict=True)]
    for big, tensor in zip(huge, small, strict=True):
        big[rows] = tensor
    lr, step = torch.full((60,), 1e-3), torch.tensor(55)
    codes = gather(*huge, rows, lr, step, rows, 0.0, 0, *ADAM)
    assert torch.equal(codes, gather(*small, near, lr, step, near, 0.0, 0, *ADAM))
    scatter_adam_(*huge, rows, codes, lr, step, *ADAM)
    scatter_adam_(*small, near, codes, lr, step, *ADAM)
    assert_equal([big[rows] for big in huge], small)


def test_latent_table_layout_and_views():
    """Uses the table layout of training, and rows and gradients that are views."""
    lr = cosine(3e-3, 1e-5, 50)
    ours = LatentTable(30, 10, lr, adam=ADAM, seed=0)
    state = empty_table(ours.codes(0))
    rows, grad = torch.arange(20)[::3], torch.randn(10, 7).T
    for step in (torch.tensor(0), torch.tensor(9)):
        scatter_adam_(*ours.state, rows, grad, lr, step, *ADAM)
        reference.scatter_adam_(*state, rows, grad, lr, step, *ADAM)
    assert_close(ours.state, state)


BAD_NUMBERS = [
    ({"rows": [2, 90]}, IndexError, "rows: 90 is outside the table, which has 90 rows"),
    ({"rows": [-1, 2]}, IndexError, "rows: -1 is outside the table"),
    ({"step": -1}, ValueError, "step: -1"),
    ({"step": 501}, ValueError, "step: 501 is outside the schedule, lr has 500 steps"),
    ({"step": 30}, ValueError, "last_step: .* is not between 0 and the current step 30"),
]


def arguments(rows=(0, 4), step=400):
    """Keyword arguments of both operators for a table of 90 rows of 5, a batch and gradients."""
    names = ("weight", "exp_avg", "exp_avg_sq", "last_step")
    found = dict(zip(names, table(90, 5, 400), strict=True))
    lr = cosine(3e-3, 1e-5, 500)
    found |= {"rows": torch.tensor(rows), "lr": lr, "step": torch.tensor(step)}
    return found | {"grad": torch.ones(len(rows), 5), "noise_ids": torch.tensor(rows)}


def call(name: str, given: dict):
    constants = dict(zip(("beta1", "beta2", "eps"), ADAM, strict=True))
    if name == "gather":
        given = {key: value for key, value in given.items() if key != "grad"}
        return gather(**given, std=1.0, seed=0, **constants)
    given = {key: value for key, value in given.items() if key != "noise_ids"}
    return scatter_adam_(**given, **constants)


def assert_refuses(name: str, given: dict, error, message: str):
    before = {key: value.clone() for key, value in given.items()}
    with pytest.raises(error, match=message):
        call(name, given)
    assert all(torch.equal(given[key], before[key]) for key in given)


@pytest.mark.parametrize("name", ["gather", "scatter_adam_"])
@pytest.mark.parametrize(("changes", "error", "message"), BAD_NUMBERS)
def test_an_error_leaves_the_table_untouched(name, changes, error, message):
    assert_refuses(name, arguments(**changes), error, message)


def test_gather_takes_the_final_step_and_scatter_adam_refuses_it():
    assert call("gather", arguments(step=500)).shape == (2, 5)
    assert_refuses("scatter_adam_", arguments(step=500), ValueError, "step: 500")


BAD_TENSORS = [
    ("weight", torch.Tensor.double, "weight: torch.float64 .* --kernels reference"),
    ("weight", lambda x: x[0], "expected .N, D., .B. and .total_steps."),
    ("exp_avg", torch.Tensor.half, "exp_avg: torch.float16"),
    ("exp_avg", lambda x: x[:, :4], "exp_avg: "),
    ("exp_avg_sq", lambda x: x[:80], "exp_avg_sq: "),
    ("exp_avg_sq", lambda x: x.T.contiguous().T, "exp_avg_sq: has strides"),
    ("last_step", torch.Tensor.int, "last_step: torch.int32"),
    ("last_step", lambda x: x[:-1], "last_step: "),
    ("rows", torch.Tensor.int, "rows: torch.int32"),
    ("rows", lambda x: x[None], "rows .1, 2."),
    ("lr", torch.Tensor.double, "lr: torch.float64"),
    ("lr", lambda x: x[::2], "lr: must be contiguous"),
    ("step", torch.Tensor.float, "step: torch.float32"),
    ("step", lambda x: x[None], "step: "),
]
BAD_GRADIENTS = [
    ("grad", lambda x: x[:1], "grad: "),
    ("grad", torch.Tensor.bfloat16, "grad: torch.bfloat16"),
]


@pytest.mark.parametrize(
    ("name", "key", "change", "message"),
    [("gather", *bad) for bad in (*BAD_TENSORS, ("noise_ids", lambda x: x[:1], "noise_ids: "))]
    + [("scatter_adam_", *bad) for bad in (*BAD_TENSORS, *BAD_GRADIENTS)],
)
def test_unsupported_tensors_are_refused(name, key, change, message):
    given = arguments()
    given[key] = change(given[key])
    assert_refuses(name, given, ValueError, message)
