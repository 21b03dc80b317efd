"""lord-fast bench."""

from pathlib import Path

from rich.console import Console

from lord_fast.bench import latent
from lord_fast.bench.measure import describe, save, table
from lord_fast.machine import set_up


def run(what: str, json: Path | None) -> None:
    """Measure on this machine, print a table and write it as JSON if asked to."""
    console = Console(stderr=True)
    machine = set_up()
    for name, value in describe(machine).items():
        console.print(f"{name}: {value}", highlight=False)
    difference = latent.agreement(machine.device)
    console.print(f"agrees with dense Adam to {difference:.1e} of the way")
    rows = [
        *latent.noise_rows(machine.device),
        *latent.scaling_rows(machine.device),
        *latent.step_rows(machine.device),
    ]
    if json is not None:
        save(json, rows, machine)
    Console().print(table(rows))
