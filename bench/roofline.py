"""Compares the memory throughput of the two operators with that of a copy.

    python bench/roofline.py

An operator that only moves its bytes would reach 100 % of a copy. The script runs on the GPU if
there is one and on the CPU otherwise.
"""

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lord_fast import kernels
from lord_fast.bench.latent import DIM, Ours
from lord_fast.bench.measure import Case, measure, rows_of
from lord_fast.machine import set_up

ROWS, BATCHES, COPY_BYTES, ROUNDS = 1_000_000, (64, 512, 4096, 65_536), 2**29, 20
ROW = 4 * DIM
GATHER_BYTES = 3 * ROW + 8 + ROW
"""Bytes per row. It reads weight, moments and last_step and writes the code."""
SCATTER_BYTES = 3 * ROW + 8 + ROW + 3 * ROW + 8
"""Bytes per row. It reads weight, moments, last_step and the gradient and writes all but the
gradient."""


def copy_speed(device: torch.device) -> float:
    """The throughput of a large copy in bytes per second, reads and writes together."""
    source = torch.ones(COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    case = Case("copy", "copy", {}, lambda: lambda: target.copy_(source))
    return (
        2
        * COPY_BYTES
        / (rows_of([case], measure([case], 5, device, kernels_only=True))[0].median_ms / 1e3)
    )


def operator_cases(one: Ours, batch: int, device: torch.device) -> list[Case]:
    """Cases for a gather and a scatter_adam_ of rows that do not repeat."""

    def rows() -> Tensor:
        one.now += 1  # must not be earlier than the last_step of any row
        return torch.randperm(ROWS, device=device)[:batch]

    def gather():
        named = rows()
        return lambda: one.table.gather(named, one.now)

    def scatter():
        named, grad, table = rows(), torch.randn(batch, DIM, device=device), one.table
        return lambda: kernels.scatter_adam_(
            table.state, named, grad, table.lr, one.now, adam=table.adam, unique=True
        )

    params = {"B": batch, "N": ROWS, "D": DIM}
    return [Case(f"B={batch}", f.__name__, params, f) for f in (gather, scatter)]


def main() -> None:
    """Measure both operators and print a table."""
    machine = set_up()
    device = machine.device
    one = Ours(ROWS, DIM, device)
    one.age()
    speed = copy_speed(device)
    out = Table("operator", "rows", "us", "GB/s", "of a copy's", title=f"{machine.describe()}")
    for batch in BATCHES:
        cases = operator_cases(one, batch, device)
        for row, moved in zip(
            rows_of(cases, measure(cases, ROUNDS, device, kernels_only=True)),
            (GATHER_BYTES, SCATTER_BYTES),
            strict=True,
        ):
            reached = moved * batch / (row.median_ms / 1e3)
            figures = (f"{1e3 * row.median_ms:.1f}", f"{reached / 1e9:.1f}")
            out.add_row(row.name, str(batch), *figures, f"{100 * reached / speed:.0f} %")
    console = Console()
    console.print(f"kernels: {kernels.live(device.type)}; a copy moves {speed / 1e9:.1f} GB/s")
    console.print(out)


if __name__ == "__main__":
    main()
