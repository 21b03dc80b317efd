"""Measures steps of the content table in each of its locations, and the memory that they take.

    python bench/tables.py [--rows 2000000] [--folder FOLDER] [--device cpu|cuda] [--cold]

A step gathers the codes of a batch and scatters their gradients. The networks are left out, so the
times show the table alone. Every location has a process of its own, and the processes take turns.
`memory` holds the whole table on the device and `disk` in a scratch file. On a GPU there are also
`pinned`, which copies the rows of each step from host memory, and `in place`, whose kernels read
and write page-locked host memory themselves. --cold drops the file from the system's cache before
every turn, so that its rows are read from the disk.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from pathlib import Path

import psutil
import torch

from lord_fast import kernels
from lord_fast.data.sampler import EpochSampler
from lord_fast.machine import keep_freed_memory, synchronize
from lord_fast.model.latent import LatentTable, initial_codes
from lord_fast.model.row_storage import FileRows, HostRows
from lord_fast.model.streamed_table import StreamedTable

LOCATIONS = {"cpu": ("memory", "disk"), "cuda": ("memory", "pinned", "in place", "disk")}
LR, TOTAL_STEPS = 3e-3, 1_000_000


class InPlaceTable(LatentTable):
    """A table in page-locked host memory, whose rows Triton reads and writes over the bus."""

    def __init__(self, num_rows: int, dim: int, lr: torch.Tensor, **options):
        super().__init__(0, dim, lr, **options)
        device = options["device"]
        parts = torch.zeros(3, num_rows, dim)
        status = torch.cuda.cudart().cudaHostRegister(parts.data_ptr(), parts.nbytes, 0)
        if int(status):
            raise RuntimeError(f"cudaHostRegister: error {int(status)}")
        weight, exp_avg, exp_avg_sq = parts.unbind(0)
        row = 0
        for codes in initial_codes(num_rows, dim, self.seed, 0):
            weight[row : row + len(codes)] = codes
            row += len(codes)
        last_step = torch.zeros(num_rows, dtype=torch.int64, device=device)
        self.state = kernels.Table(weight, exp_avg, exp_avg_sq, last_step)


def make_table(location: str, args: argparse.Namespace) -> LatentTable:
    """Create a table of --rows rows."""
    lr = torch.full((TOTAL_STEPS,), LR)
    options = {"adam": kernels.Adam(), "seed": 0, "std": 1.0, "device": args.device}
    if location == "memory":
        return LatentTable(args.memory_rows or args.rows, args.dim, lr, **options)
    if location == "in place":
        return InPlaceTable(args.rows, args.dim, lr, **options)

    def storage() -> FileRows | HostRows:
        on_disk = location == "disk"
        return FileRows(args.folder, args.dim) if on_disk else HostRows(args.rows, args.dim)

    return StreamedTable(storage, args.rows, args.dim, lr, **options)


def drop_from_cache(table: LatentTable) -> None:
    """Let the system forget the scratch file, so that its rows must be read from the disk."""
    if isinstance(table, StreamedTable) and isinstance(table.storage, FileRows):
        table.flush()
        os.fdatasync(table.storage._fd)
        os.posix_fadvise(table.storage._fd, 0, 0, os.POSIX_FADV_DONTNEED)


def work(location: str, args: argparse.Namespace, pipe) -> None:
    """Run turns of --steps steps when asked, and send the times of each and the memory."""
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    device = torch.device(args.device)
    start = time.perf_counter()
    table = make_table(location, args)
    num_rows = (args.memory_rows or args.rows) if location == "memory" else args.rows
    sampler = EpochSampler(num_rows, args.batch, seed=0)
    steps = torch.arange(TOTAL_STEPS, device=device)
    step = 0

    def one() -> None:
        nonlocal step
        ids = sampler.image_ids(step)
        rows = ids.to(device)
        table.load(step, sampler.image_ids)
        codes = table.gather(rows, steps[step])
        codes.grad = 0.01 * codes.detach()
        table.scatter_adam_(rows, codes, steps[step], unique=True)
        table.store(step)
        step += 1

    one()
    pipe.send(time.perf_counter() - start)
    while pipe.recv():
        if args.cold:
            drop_from_cache(table)
        start = time.perf_counter()
        for _ in range(args.steps):
            one()
        synchronize(device)
        pipe.send((time.perf_counter() - start, psutil.Process().memory_info().rss))
    table.close()


def main() -> None:
    """Start a process for each location and let them take turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--memory-rows", type=int, help="rows of `memory`, if not --rows")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=500, help="steps of a turn")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path.cwd())
    parser.add_argument("--device", choices=list(LOCATIONS))
    parser.add_argument("--only", nargs="+", help="locations to measure")
    parser.add_argument("--cold", action="store_true")
    args = parser.parse_args()
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    context = multiprocessing.get_context("spawn")
    pipes, times, memory = {}, {}, {}
    for location in args.only or LOCATIONS[args.device]:
        pipe, other = context.Pipe()
        context.Process(target=work, args=(location, args, other), daemon=True).start()
        other.close()
        print(f"{location}: ready after {pipe.recv():.1f} s", flush=True)
        pipes[location], times[location] = pipe, []
    for _ in range(args.rounds):
        for location, pipe in pipes.items():
            pipe.send(True)
            seconds, memory[location] = pipe.recv()
            times[location].append(seconds / args.steps * 1e3)
    print(f"{args.rows:,} rows of {args.dim}, batches of {args.batch}, {args.rounds} turns of "
          f"{args.steps} steps, {args.device}, {args.threads} threads"
          f"{', cold file' if args.cold else ''}")  # fmt: skip
    for location, found in times.items():
        print(f"{location:10} {statistics.median(found):8.3f} ms a step ({min(found):.3f} to "
              f"{max(found):.3f}), {memory[location] / 1e9:6.2f} GB resident")  # fmt: skip
    for pipe in pipes.values():
        pipe.send(False)


if __name__ == "__main__":
    main()
