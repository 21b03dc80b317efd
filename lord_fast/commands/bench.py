"""lord-fast bench."""

from pathlib import Path

import torch
from rich.console import Console

from lord_fast.bench import data, latent, step, train
from lord_fast.bench.measure import Row, describe, save, table
from lord_fast.bench.plot import draw
from lord_fast.bench.step import Setting
from lord_fast.machine import Machine, set_up


def run(
    what: str,
    json: Path | None,
    plot: Path | None,
    shape: dict[str, int],
    precision: str,
    steps: int,
    scaling: bool,
    threads: int,
) -> None:
    """Measure on this machine, print a table, write it as JSON and as a picture if asked to."""
    console = Console(stderr=True)
    machine = set_up(precision=precision, threads=threads)
    facts = describe(machine)
    for name, value in facts.items():
        console.print(f"{name}: {value}", highlight=False)
    if what == "step":
        sized = _scaling(shape, console, threads) if scaling else []  # while the memory is free
        with step.setting(machine, **shape) as found:
            rows = _step(found, console) + sized
    elif what == "train":
        with step.setting(machine, **shape) as found:
            rows = _train(found, console, machine.dtype, steps)
    else:
        rows = {"latent": _latent, "data": _data}[what](machine, console)
    if json is not None:
        save(json, rows, machine)
    if plot is not None:
        draw(plot, rows, f"lord-fast bench {what}, {facts['processor']}, {facts['device']}")
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


def _step(found: Setting, console: Console) -> list[Row]:
    for name, operations in step.operations(found).items():
        console.print(f"operations: {name}: {operations:.1f} GFLOP an image", highlight=False)
    steps = step.ladder(found)
    calls = "kernels launched" if found.device.type == "cuda" else "operators called"
    for name, count in step.launches(found, steps).items():
        console.print(f"{calls} a step: {name}: {count:,}", highlight=False)
    for name, share in step.convolution_shares(found, steps).items():
        console.print(f"convolutions: {name}: {100 * share:.0f} % of the step", highlight=False)
    rows = step.step_rows(found, steps)
    for row in rows:
        speed = row.params["B"] / row.median_ms * 1e3
        console.print(f"{row.group}: {row.name}: {speed:.1f} images/s", highlight=False)
    return rows


def _scaling(shape: dict[str, int], console: Console, threads: int) -> list[Row]:
    rows = []
    for axis, sizes in (("images", step.SCALING_IMAGES), ("classes", step.SCALING_CLASSES)):
        for row in step.scaling_alone(shape, threads, axis, sizes):
            memory = f"{row.params['memory_mb']:,} MiB"
            console.print(f"{row.group}: {row.name}: {memory}", highlight=False)
            rows.append(row)
    return rows


def _train(found: Setting, console: Console, dtype: torch.dtype, steps: int) -> list[Row]:
    rows, differences = train.train_rows(found, dtype, steps)
    for name, (largest, last) in differences.items():
        text = (
            f"off the published losses by {largest:.1e} at most, the mean of the last 50 {last:.1e}"
        )
        console.print(f"{rows[0].group}: {name}: {text}", highlight=False)
    return rows
