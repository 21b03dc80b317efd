"""Times a step of a latent table with pytest-benchmark.

    python -m pytest bench/bench_latent.py --benchmark-only --benchmark-group-by=group

Results are checked before anything is timed (`assert_right`). pytest-benchmark times the cases one
after the other, so a disturbance of the machine affects only one of them. Quote ratios from
`lord-fast bench latent`, where the cases take turns.
"""

import functools

import pytest
import torch

from lord_fast.bench import latent
from lord_fast.bench.latent import DIM, STEP_BATCHES, STEP_SIZE, Ours, agreement, contenders
from lord_fast.kernels import reference

DEVICES = ["cpu", *["cuda"][: torch.cuda.is_available()]]
FLOAT = 4


def synchronized(work, device):
    """Make `work` wait for CUDA to finish."""
    if device.type != "cuda":
        return work

    def both():
        work()
        torch.cuda.synchronize()

    return both


def run(benchmark, group: str, prepare, device, floats: int, rounds: int) -> None:
    """Time a new input in each round. `floats` is the least number of floats to read and write."""
    benchmark.group = f"{group}, {device}"
    benchmark.pedantic(
        lambda work: work(),
        setup=lambda: ((synchronized(prepare(), device),), {}),
        rounds=rounds,
        warmup_rounds=3,
    )
    seconds = benchmark.stats.stats.median
    benchmark.extra_info["GB/s"] = round(FLOAT * floats / seconds / 1e9, 2)


@functools.cache
def assert_right(device: torch.device) -> None:
    """Check that lord-fast, fused Adam and the first step of SparseAdam equal dense Adam."""
    assert agreement(device) < 1e-5
    start, grad = torch.rand(200, DIM, device=device), 1 + torch.rand(8, DIM, device=device)
    after = []
    for make in (latent.Dense, latent.DenseFused, latent.Sparse):
        one = make(200, DIM, device)
        one.table.weight.data.copy_(start)
        one.step(torch.arange(8, device=device), grad)
        after.append(one.table.weight.detach())
    torch.testing.assert_close(after[1], after[0])
    torch.testing.assert_close(after[2], after[0])


@functools.cache
def aged(make, num_rows: int, device: torch.device):
    table = make(num_rows, DIM, device)
    table.age()
    return table


def moved(make, num_rows: int, batch: int) -> int:
    """The least number of floats of state, codes and gradients that a step reads or writes.

    lord-fast reads weight and moments to gather and again to update, writes them, writes the codes
    and reads the gradients. Dense Adam reads four tables and writes three.
    """
    if issubclass(make, latent.Dense) and not make.sparse:
        return 7 * num_rows * DIM
    return 11 * batch * DIM


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("batch", STEP_BATCHES)
@pytest.mark.parametrize("make", contenders(torch.device(DEVICES[-1])), ids=lambda m: m.__name__)
def test_step(benchmark, make, batch, device):
    device = torch.device(device)
    if make not in contenders(device):
        pytest.skip(f"{make.__name__} is not for {device}")
    assert_right(device)
    prepare = latent.batches(aged(make, STEP_SIZE, device), STEP_SIZE, batch, device)
    rounds = 10 if moved(make, STEP_SIZE, batch) > STEP_SIZE * DIM else 100
    floats = moved(make, STEP_SIZE, batch)
    run(benchmark, f"step, N={STEP_SIZE} B={batch} D={DIM}", prepare, device, floats, rounds)


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("batch", STEP_BATCHES)
@pytest.mark.parametrize("num_rows", latent.SCALING_SIZES)
def test_size_of_the_table(benchmark, num_rows, batch, device):
    device = torch.device(device)
    assert_right(device)
    prepare = latent.batches(aged(Ours, num_rows, device), num_rows, batch, device)
    group, floats = f"size of the table, B={batch} D={DIM}", moved(Ours, num_rows, batch)
    run(benchmark, group, prepare, device, floats, 100)


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("batch", latent.NOISE_BATCHES)
@pytest.mark.parametrize("which", range(3), ids=("randn", "gather", "gather-with-noise"))
def test_noise(benchmark, which, batch, device):
    device = torch.device(device)
    case = latent.noise_cases(batch, device)[which]
    if which == 2:
        rows, now = torch.arange(batch, device=device), torch.tensor(0, device=device)
        noise = case.prepare()() - latent.noise_cases(batch, device)[1].prepare()()
        wanted = reference.noise(rows, DIM, now, 0)
        torch.testing.assert_close(noise.detach(), wanted, rtol=0, atol=2e-6)
    floats = batch * DIM * (1, 4, 4)[which]
    run(benchmark, case.group, case.prepare, device, floats, 100)
