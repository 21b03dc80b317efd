"""Benchmarks of one step of a latent table, which gathers codes and then updates them."""

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from lord_fast import kernels
from lord_fast.bench.measure import Case, Row, measure, rows_of
from lord_fast.model.latent import LatentTable

DIM = 128
LR = 3e-3
BETAS = (0.5, 0.999)
TOTAL_STEPS = 200_000
AGE = 100_000
"""Number of steps that lord-fast's table has done before timing. Rows missed up to that many."""

STEP_SIZE, STEP_BATCHES, STEP_ROUNDS = 1_000_000, (64, 512, 4096), 10
SCALING_SIZES, SCALING_ROUNDS = (100_000, 1_000_000, 4_000_000), 50
NOISE_BATCHES, NOISE_ROUNDS = (64, 4096), 100


class Contender(Protocol):
    """An implementation of a table and its optimizer.

    Attributes:
        name: Name in the results, with a note if the optimizer is not dense Adam.
        tables: Memory that it takes, in float32 tables [N, D].
    """

    name: str
    tables: int

    def age(self) -> None:
        """Fill the state of every row, because reading memory that was never written is cheap."""

    def step(self, rows: Tensor, grad: Tensor) -> None:
        """Read the codes of `rows` [B], then update them with `grad` [B, D]. This is timed."""


class Ours:
    """lord-fast's gather and scatter_adam_, which compute dense Adam."""

    name = "lord-fast"
    tables = 3

    def __init__(self, num_rows: int, dim: int, device: torch.device):
        lr = torch.full((TOTAL_STEPS,), LR)
        adam = kernels.Adam(*BETAS)
        self.table = LatentTable(num_rows, dim, lr, adam=adam, seed=0, device=device)
        self.now = torch.tensor(0, device=device)

    def age(self) -> None:
        """See `Contender`."""
        _age(self.table.state.exp_avg, self.table.state.exp_avg_sq)
        self.table.state.last_step.random_(AGE)
        self.now.fill_(AGE)

    def step(self, rows: Tensor, grad: Tensor) -> None:
        """See `Contender`."""
        codes = self.table.gather(rows, self.now)
        codes.grad = grad
        self.table.scatter_adam_(rows, codes, self.now)
        self.now += 1

    def weight(self) -> Tensor:
        """All rows as of the current step, [N, D]."""
        return self.table.codes(int(self.now))


class Dense:
    """nn.Embedding with torch.optim.Adam, which updates every row at every step."""

    name = "dense Adam"
    tables = 6
    sparse = False

    def __init__(self, num_rows: int, dim: int, device: torch.device):
        start = torch.empty(num_rows, dim, device=device).uniform_(-0.05, 0.05)
        self.table = nn.Embedding(num_rows, dim, sparse=self.sparse, _weight=start)
        self.optimizer = self.make_optimizer()

    def make_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of the table."""
        return torch.optim.Adam(self.table.parameters(), lr=LR, betas=BETAS, **self.captured())

    def captured(self) -> dict[str, bool]:
        """The options of an optimizer that a CUDA graph may capture."""
        return {"capturable": self.table.weight.is_cuda}

    def age(self) -> None:
        """See `Contender`."""
        weight = self.table.weight
        self.step(torch.zeros(1, dtype=torch.int64, device=weight.device), weight[:1].detach())
        state = self.optimizer.state[weight]
        _age(state["exp_avg"], state["exp_avg_sq"])

    def step(self, rows: Tensor, grad: Tensor) -> None:
        """See `Contender`."""
        self.table(rows).backward(grad)
        self.optimizer.step()
        self.optimizer.zero_grad()


class DenseFused(Dense):
    """Dense Adam in PyTorch's fastest form."""

    name = "dense Adam, fused"
    tables = 4

    def make_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of the table."""
        options = self.captured()
        return torch.optim.Adam(self.table.parameters(), lr=LR, betas=BETAS, fused=True, **options)


class Sparse(Dense):
    """nn.Embedding(sparse=True) with SparseAdam, which does not move rows outside the batch."""

    name = "SparseAdam (another optimizer)"
    tables = 3
    sparse = True

    def make_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of the table."""
        return torch.optim.SparseAdam(list(self.table.parameters()), lr=LR, betas=BETAS)


class Fbgemm:
    """FBGEMM's table-batched embedding, which updates only rows of the batch.

    FBGEMM has no Adam on the CPU, so rowwise Adagrad is timed there.
    """

    name = "FBGEMM rowwise Adagrad (another optimizer)"
    tables = 1

    def __init__(self, num_rows: int, dim: int, device: torch.device):
        from fbgemm_gpu import split_table_batched_embeddings_ops_training as fbgemm
        from fbgemm_gpu.split_embedding_configs import EmbOptimType

        cuda = device.type == "cuda"
        place = fbgemm.EmbeddingLocation.DEVICE if cuda else fbgemm.EmbeddingLocation.HOST
        where = fbgemm.ComputeDevice.CUDA if cuda else fbgemm.ComputeDevice.CPU
        options = {"optimizer": EmbOptimType.EXACT_ROWWISE_ADAGRAD}
        if cuda:
            options = {"optimizer": EmbOptimType.ADAM, "beta1": BETAS[0], "beta2": BETAS[1]}
        self.table = fbgemm.SplitTableBatchedEmbeddingBagsCodegen(
            [(num_rows, dim, place, where)],
            learning_rate=LR, eps=1e-8, pooling_mode=fbgemm.PoolingMode.NONE, **options,
        )  # fmt: skip

    def age(self) -> None:
        """See `Contender`."""
        self.table.split_embedding_weights()[0].uniform_(-0.05, 0.05)
        for state in self.table.split_optimizer_states()[0]:
            state.fill_(1e-3)

    def step(self, rows: Tensor, grad: Tensor) -> None:
        """See `Contender`."""
        offsets = torch.arange(len(rows) + 1, device=rows.device)
        self.table(rows, offsets).backward(grad)


class FbgemmAdam(Fbgemm):
    """FBGEMM on CUDA, where it has Adam."""

    name = "FBGEMM Adam (another optimizer)"
    tables = 3


def _age(exp_avg: Tensor, exp_avg_sq: Tensor) -> None:
    exp_avg.normal_(std=1e-2)
    exp_avg_sq.uniform_(1e-5, 1e-3)


def contenders(device: torch.device) -> list[Callable[..., Contender]]:
    """The implementations that can run here. The first is the base of the ratios."""
    found: list[Callable[..., Contender]] = [DenseFused, Dense, Sparse, Ours]
    if importlib.util.find_spec("fbgemm_gpu") is not None:
        found.append(FbgemmAdam if device.type == "cuda" else Fbgemm)
    return found


def agreement(device: torch.device, steps: int = 40) -> float:
    """The largest difference to dense Adam after some steps, relative to the largest movement."""
    ours, dense = Ours(200, DIM, device), Dense(200, DIM, device)
    before = ours.weight()
    dense.table.weight.data.copy_(before)
    for _ in range(steps):
        rows = torch.randint(200, (16,), device=device)
        grad = torch.randn(16, DIM, device=device)
        ours.step(rows, grad)
        dense.step(rows, grad)
    after = dense.table.weight.detach()
    return float((ours.weight() - after).abs().max() / (after - before).abs().max())


def step_rows(device: torch.device) -> list[Row]:
    """Time one step of a table of `STEP_SIZE` rows with every implementation."""
    tables = [make(STEP_SIZE, DIM, device) for make in contenders(device)]
    for one in tables:
        one.age()
    found = []
    for batch in STEP_BATCHES:
        cases = [
            Case(
                f"step, N={STEP_SIZE} B={batch} D={DIM}", one.name,
                {"N": STEP_SIZE, "B": batch, "D": DIM}, batches(one, STEP_SIZE, batch, device),
            )
            for one in tables
        ]  # fmt: skip
        found += rows_of(cases, measure(cases, STEP_ROUNDS, device, kernels_only=True))
    return found


def scaling_rows(device: torch.device) -> list[Row]:
    """Time lord-fast's step for tables of several sizes."""
    tables = {size: Ours(size, DIM, device) for size in SCALING_SIZES}
    for one in tables.values():
        one.age()
    found = []
    for batch in STEP_BATCHES:
        cases = [
            Case(
                f"size of the table, B={batch} D={DIM}", f"{one.name}, N={size}",
                {"N": size, "B": batch, "D": DIM}, batches(one, size, batch, device),
            )
            for size, one in tables.items()
        ]  # fmt: skip
        found += rows_of(cases, measure(cases, SCALING_ROUNDS, device, kernels_only=True))
    return found


def noise_rows(device: torch.device) -> list[Row]:
    """Time the noise of a gather and torch.randn of the same shape."""
    found = []
    for batch in NOISE_BATCHES:
        cases = noise_cases(batch, device)
        times = measure(cases, NOISE_ROUNDS, device, kernels_only=True)
        difference = [noisy - plain for plain, noisy in zip(times[1], times[2], strict=True)]
        noise = replace(cases[2], name="noise of gather (the difference)")
        found += rows_of([*cases, noise], [*times, difference])
    return found


def noise_cases(batch: int, device: torch.device) -> list[Case]:
    """Cases for torch.randn, a gather and a gather with noise, all of the same shape."""
    table = Ours(batch, DIM, device).table
    rows, now = torch.arange(batch, device=device), torch.tensor(0, device=device)

    def randn() -> Callable[[], Tensor]:
        return lambda: torch.randn(batch, DIM, device=device)

    def gather(std: float) -> Callable[[], Tensor]:
        table.std = std
        return lambda: table.gather(rows, now)

    group, params = f"noise, B={batch} D={DIM}", {"B": batch, "D": DIM}
    return [
        Case(group, "torch.randn", params, randn),
        Case(group, "gather", params, partial(gather, 0.0)),
        Case(group, "gather with noise", params, partial(gather, 1.0)),
    ]


def batches(
    one: Contender, num_rows: int, batch: int, device: torch.device
) -> Callable[[], Callable[[], None]]:
    """A function that prepares a step on new random rows with Gaussian gradients."""

    def prepare() -> Callable[[], None]:
        rows = torch.randint(num_rows, (batch,), device=device)
        grad = torch.randn(batch, DIM, device=device)
        return lambda: one.step(rows, grad)

    return prepare
