"""Measures how long training waits for a save, a line of the log and a swap grid.

    python bench/saves.py --rows 10000 1000000 --dim 128 --folder runs/saves

For each size it trains nothing. It marks the rows that the default interval of 500 steps of 64
images would update, saves with networks of the `paper` preset, and times two parts: what training
waits for (the copies and the check) and what the writer does in its thread. Beside them it times a
save of the whole table, as lord-fast made it before it saved segments. Sizes that do not fit in
memory are named and left out.

The share of training time is the wait divided by the time of 500 steps. The upper bound of the
share adds the writer's CPU time, as if training stood still meanwhile. The time of a step is an
assumption (`--cpu-step`, `--gpu-step`).
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

from lord_fast import kernels
from lord_fast.atomic import file_sha256, sync
from lord_fast.config import replace
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources.glyphs import Glyphs
from lord_fast.data.store import ImageStore
from lord_fast.grid import save_png
from lord_fast.machine import set_up
from lord_fast.memory import free_memory
from lord_fast.model.build import build_decoder
from lord_fast.model.latent import LatentTable
from lord_fast.presets import PRESETS
from lord_fast.run import snapshot
from lord_fast.run.tensors import State
from lord_fast.train import optimizer
from lord_fast.train.latent import LatentStage
from lord_fast.train.log import Log

CONFIG = PRESETS["paper"]
INTERVAL, BATCH = CONFIG.logging.save_every, 64
SAVES = 3
"""Number of saves of which the median is taken."""
HEAD = (
    "rows", "dim", "table MB", "changed", "wait ms", "writer ms", "writer CPU ms", "written MB",
    "whole table ms",
)  # fmt: skip


def networks() -> State:
    """The networks of the paper preset at 64 px, with the moments of Adam."""
    decoder = build_decoder(CONFIG, 64, 3)
    adam = optimizer.adam(decoder.parameters(), CONFIG.adam, CONFIG.adam.lr)
    for parameter in decoder.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(adam)
    return {"decoder": decoder.state_dict(), "optimizer": optimizer.state_dict(adam)}


def table_of(rows: int, dim: int) -> LatentTable:
    """A table whose rows have all been updated once."""
    table = LatentTable(rows, dim, torch.full((2,), 1e-3), adam=kernels.Adam(), seed=0)
    table.state.last_step.fill_(1)
    return table


def timed(work: Callable[[], object]) -> tuple[float, float, object]:
    """Return the seconds of some work, its seconds of CPU in this thread, and its result."""
    start, cpu = time.perf_counter(), time.thread_time()
    result = work()
    return time.perf_counter() - start, time.thread_time() - cpu, result


def increments(folder: Path, state: State, table: LatentTable) -> tuple[float, float, float, float]:
    """Save after each of some intervals. Return medians: wait, writer, its CPU, and bytes."""
    tables, found = {"content": {0: table}}, []
    path = snapshot.save(folder, "latent", 1, state, tables)
    changed = min(INTERVAL * BATCH, table.num_rows)
    for number in range(1, SAVES + 2):
        step = number * INTERVAL
        table.state.last_step[torch.randperm(table.num_rows)[:changed]] = step
        previous = path if snapshot.can_link(path, step, print) else None

        def take(step: int = step, previous: Path | None = previous) -> snapshot.Snapshot:
            return snapshot.take("latent", step, state, tables, previous)

        waited, _, taken = timed(take)
        assert isinstance(taken, snapshot.Snapshot)
        wrote, cpu, _ = timed(lambda taken=taken: snapshot.write(folder, taken))  # type: ignore[misc]
        if not taken.in_memory:  # Training waits for the writer as well.
            waited, wrote, cpu = waited + wrote, 0.0, 0.0
        path = folder / taken.name
        new = [file for file in path.iterdir() if file.stat().st_nlink == 1]
        found.append((waited, wrote, cpu, float(sum(file.stat().st_size for file in new))))
    rest = found[1:]  # The first touches memory for the first time.
    a, b, c, d = (statistics.median(column) for column in zip(*rest, strict=True))
    return a, b, c, d


def whole(folder: Path, state: State, table: LatentTable) -> float | None:
    """Seconds of a save of the whole table, or None if its copy does not fit in memory."""
    if free_memory(torch.device("cpu")) < 1.2 * table.num_rows * (12 * table.dim + 8):
        return None

    def save() -> None:
        parts = {**state, "content": table.state._asdict()}
        for name, tensors in parts.items():
            file = folder / f"{name}.safetensors"
            save_file({key: value.contiguous() for key, value in tensors.items()}, file)
            file_sha256(file)
            sync(file)

    folder.mkdir()
    return timed(save)[0]


def logs_and_grids(folder: Path) -> tuple[float, float]:
    """Seconds of a line of the log and of a swap grid, with the networks of the paper preset."""
    pack(Glyphs(64, 8), folder / "store", PackConfig(size=64))
    config = replace(CONFIG, loss="pyramid", batch_size=BATCH, device="cpu")
    stage = LatentStage(config, ImageStore(folder / "store"), set_up("cpu", "float32", 0))
    log, scalars = Log(stage, folder, Console(quiet=True)), stage.step(0)
    lines, grids = [], []
    for done in range(1, SAVES + 1):
        log.add(done, scalars)
        lines.append(timed(lambda done=done: log.write(done))[0])  # type: ignore[misc]
        grids.append(timed(lambda: save_png(folder / "grid.png", stage.grid(1)))[0])
    return statistics.median(lines), statistics.median(grids)


def shares(seconds: float, given: argparse.Namespace) -> str:
    """The share of training time of work once an interval, for the assumed times of a step."""
    found = []
    for name, step in (("CPU", given.cpu_step), ("A100", given.gpu_step)):
        found.append(f"{100 * seconds / (INTERVAL * step):.3f} % ({name})")
    return ", ".join(found)


def main() -> None:
    """Measure each size and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000, 10_000_000])
    parser.add_argument("--dim", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    parser.add_argument(
        "--cpu-step", type=float, default=2.2,
        help="assumed seconds of a step of 64 images on this CPU",
    )  # fmt: skip
    parser.add_argument(
        "--gpu-step", type=float, default=0.015,
        help="assumed seconds of a step of 64 images of 64 px on an A100, on paper",
    )  # fmt: skip
    given = parser.parse_args()
    if given.folder:
        given.folder.mkdir(parents=True, exist_ok=True)
    state, out, console = networks(), Table(*HEAD), Console(width=140)
    size = sum(t.nbytes for tensors in state.values() for t in tensors.values())
    console.print(f"networks and moments: {size / 1e6:.1f} MB; {torch.get_num_threads()} threads")
    for rows in given.rows:
        for dim in given.dim:
            bytes_of_table = rows * (12 * dim + 8)
            if free_memory(torch.device("cpu")) < 1.1 * bytes_of_table:
                console.print(f"{rows} x {dim}: {bytes_of_table / 1e9:.1f} GB do not fit in memory")
                continue
            with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
                folder, table = Path(temporary), table_of(rows, dim)
                wait, writer, cpu, written = increments(folder / "new", state, table)
                shutil.rmtree(folder / "new")
                before = whole(folder / "old", state, table)
            changed = min(INTERVAL * BATCH, rows)
            out.add_row(
                f"{rows:.0e}", str(dim), f"{bytes_of_table / 1e6:.0f}", str(changed),
                *(f"{1e3 * seconds:.0f}" for seconds in (wait, writer, cpu)),
                f"{written / 1e6:.0f}", "no memory" if before is None else f"{1e3 * before:.0f}",
            )  # fmt: skip
            console.print(f"{rows} x {dim}: training waits {shares(wait, given)} of its time")
            console.print(f"  at most {shares(wait + cpu, given)} with the writer's CPU time")
            if before is not None:
                console.print(f"  a save of the whole table: {shares(before, given)}")
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        line, grid = logs_and_grids(Path(temporary))
    console.print(out)
    often = INTERVAL // CONFIG.logging.log_every
    console.print(f"a line of the log: {1e3 * line:.2f} ms, {shares(often * line, given)}")
    console.print(
        f"a grid: {1e3 * grid:.0f} ms, {100 * grid / (INTERVAL * given.cpu_step):.3f} % (CPU). "
        f"On a GPU it is the decoder's forward pass of 80 images, less than one step in {INTERVAL}"
    )
    console.print(
        f"assumed: a step of {BATCH} images takes {given.cpu_step} s on this CPU and "
        f"{given.gpu_step} s on an A100, a save every {INTERVAL} steps"
    )


if __name__ == "__main__":
    main()
