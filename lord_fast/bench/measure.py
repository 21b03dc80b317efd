"""Timing of several cases in one process.

The cases take turns, so that a disturbance of the machine affects all of them. A turn is one
warm-up call and a few timed calls. Every call has a new input, so the caches hold the code of a
case but not its data, as in a training loop.
"""

import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from rich.table import Table

from lord_fast import __version__, kernels
from lord_fast.bench import gpu
from lord_fast.machine import Machine, synchronize
from lord_fast.system import cpu_count

CALLS = 4


@dataclass(frozen=True)
class Case:
    """A function to time.

    Attributes:
        group: Name of a group of comparable cases. The first case of a group is its base.
        name: Name of the implementation.
        params: Sizes of the case.
        prepare: Makes the next input and returns the function to time. `prepare` is not timed.
    """

    group: str
    name: str
    params: dict[str, int]
    prepare: Callable[[], Callable[[], object]]


@dataclass(frozen=True)
class Row:
    """The times of a case. A `ratio_to_base` above 1 means faster than the group's base."""

    group: str
    name: str
    params: dict[str, int]
    median_ms: float
    min_ms: float
    max_ms: float
    ratio_to_base: float


def measure(
    cases: list[Case],
    rounds: int,
    device: torch.device,
    calls: int = CALLS,
    clock: Callable[[], float] = time.perf_counter,
    kernels_only: bool = False,
) -> list[list[float]]:
    """Time cases in turn.

    Args:
        cases: The cases. Each takes one turn per round.
        rounds: Number of rounds.
        device: Device that is synchronized before the clock is read.
        calls: Timed calls per turn.
        clock: `time.perf_counter`, or `time.process_time` for the CPU time of all threads.
        kernels_only: On a GPU, time a call from a CUDA graph with a cold L2 cache. Otherwise the
            calls of a turn follow each other without waiting, and their mean is one time.

    Returns:
        For each case, the seconds of every timed call, or of every turn on a GPU.
    """
    card = gpu.Cuda(device) if device.type == "cuda" else None
    times: list[list[float]] = [[] for _ in cases]
    gc.collect()
    gc.disable()
    try:
        for _ in track(range(rounds), cases[0].group, transient=True):
            for case, mine in zip(cases, times, strict=True):
                if card is not None:
                    mine.append(on_gpu(card, case, calls, kernels_only))
                    continue
                turn = [_time(case.prepare(), device, clock) for _ in range(1 + calls)]
                mine += turn[1:]
    finally:
        gc.enable()
    return times


def on_gpu(card: gpu.Gpu, case: Case, calls: int, kernels_only: bool) -> float:
    """Return the time of one turn of a case on a GPU in seconds, see `measure`."""
    if kernels_only:
        return gpu.cold(card, case.prepare(), case.name)
    return gpu.pipelined(card, [case.prepare() for _ in range(1 + calls)])


def rows_of(cases: list[Case], times: list[list[float]]) -> list[Row]:
    """Summarize the times of each case. Ratios are between medians of a group."""
    bases: dict[str, float] = {}
    rows = []
    for case, seconds in zip(cases, times, strict=True):
        median = statistics.median(seconds) * 1e3
        base = bases.setdefault(case.group, median)
        low, high = min(seconds) * 1e3, max(seconds) * 1e3
        rows.append(Row(case.group, case.name, case.params, median, low, high, base / median))
    return rows


def table(rows: list[Row]) -> Table:
    """Format rows as a table for the terminal."""
    out = Table("group", "name", *(("median ms", "min", "max", "x base")), title="lord-fast bench")
    for column in out.columns[2:]:
        column.justify = "right"
    for before, row in zip([None, *rows], rows, strict=False):
        if before is not None and before.group != row.group:
            out.add_section()
        figures = (row.median_ms, row.min_ms, row.max_ms)
        ratio = f"{row.ratio_to_base:.3g}"
        out.add_row(row.group, row.name, *(f"{figure:.3f}" for figure in figures), ratio)
    return out


def save(path: Path, rows: list[Row], machine: Machine, **more: Any) -> None:
    """Write the results as JSON in the form {"machine": {...}, "rows": [...]} and more keys."""
    content = {"machine": describe(machine), "rows": [asdict(row) for row in rows], **more}
    path.write_text(json.dumps(content, indent=1) + "\n")


def describe(machine: Machine) -> dict[str, Any]:
    """The properties of the machine and the software that affect the results."""
    return {
        "device": machine.describe(),
        "processor": _processor(),
        "cores": cpu_count(),
        "threads": machine.threads,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lord_fast": __version__,
        "kernels": str(kernels.live(machine.device.type)),
    }


def _time(work: Callable[[], object], device: torch.device, clock: Callable[[], float]) -> float:
    synchronize(device)
    start = clock()
    work()
    synchronize(device)
    return clock() - start


def _processor() -> str:
    try:  # only Linux has the file, and on Arm it holds no name
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
