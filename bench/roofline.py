"""The two operators against the memory's speed: bytes moved over what a copy moves.

    python bench/roofline.py

An operator that does nothing but move its bytes would reach 100 %. Runs on a GPU where there is
one, else on the CPU.
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
"""Weight and moments, last_step; the code."""
SCATTER_BYTES = 3 * ROW + 8 + ROW + 3 * ROW + 8
"""The same and the gradient; weight, moments and last_step again."""


def copy_speed(device: torch.device) -> float:
    """Bytes a second, read and written, of a large copy."""
    source = torch.ones(COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    case = Case("copy", "copy", {}, lambda: lambda: target.copy_(source))
    return 2 * COPY_BYTES / (rows_of([case], measure([case], 5, device))[0].median_ms / 1e3)


def operator_cases(one: Ours, batch: int, device: torch.device) -> list[Case]:
    """A gather with noise and a scatter of rows that do not repeat."""

    def rows() -> Tensor:
        one.now += 1  # no row's last step is later
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
    """Print a table."""
    machine = set_up()
    device = machine.device
    one = Ours(ROWS, DIM, device)
    one.age()
    speed = copy_speed(device)
    out = Table("operator", "rows", "us", "GB/s", "of a copy's", title=f"{machine.describe()}")
    for batch in BATCHES:
        cases = operator_cases(one, batch, device)
        for row, moved in zip(
            rows_of(cases, measure(cases, ROUNDS, device)),
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
