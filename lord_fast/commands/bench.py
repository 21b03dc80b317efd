"""lord-fast bench."""

from pathlib import Path

from rich.console import Console

from lord_fast.bench import data, latent, step
from lord_fast.bench.measure import Row, describe, save, table
from lord_fast.machine import Machine, set_up


def run(what: str, json: Path | None, batch_size: int, threads: int) -> None:
    """Measure on this machine, print a table and write it as JSON if asked to."""
    console = Console(stderr=True)
    machine = set_up(threads=threads)
    for name, value in describe(machine).items():
        console.print(f"{name}: {value}", highlight=False)
    if what == "step":
        rows = _step(machine, console, batch_size)
    else:
        rows = {"latent": _latent, "data": _data}[what](machine, console)
    if json is not None:
        save(json, rows, machine)
    Console().print(table(rows))


def _latent(machine: Machine, console: Console) -> list[Row]:
    difference = latent.agreement(machine.device)
    console.print(f"agrees with dense Adam to {difference:.1e} of the way")
    return [
        *latent.noise_rows(machine.device),
        *latent.scaling_rows(machine.device),
        *latent.step_rows(machine.device),
    ]


def _data(machine: Machine, console: Console) -> list[Row]:
    rows = data.all_rows(machine)
    for row in rows:
        if "B" in row.params and "training" not in row.group:
            speed = row.params["B"] / row.median_ms * 1e3
            console.print(f"{row.group}: {row.name}: {speed:,.0f} images/s", highlight=False)
        elif row.name == "waiting for images":
            share = 100 / row.ratio_to_base
            console.print(f"{row.group}: idle {share:.2f} % of the step", highlight=False)
    return rows


def _step(machine: Machine, console: Console, batch_size: int) -> list[Row]:
    with step.setting(machine, batch_size) as found:
        for name, operations in step.operations(found).items():
            console.print(f"operations: {name}: {operations:.1f} GFLOP an image", highlight=False)
        return step.step_rows(found)
