"""Trains in processes that are killed at given system calls of their saves.

`test_reliability_crash` runs `python -m tests.crash_points STORE FOLDER POINTS`. It prints a JSON
object with the number of calls and with the problem at each point, if there was one.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import torch

from lord_fast.config import TrainConfig, replace
from lord_fast.data.store import ImageStore
from lord_fast.machine import set_up
from lord_fast.run import checkpoint, tensors
from lord_fast.run.folder import hold_run
from lord_fast.run.stats import read_stats
from lord_fast.train.latent import LatentStage
from lord_fast.train.loop import run_stage
from lord_fast.train.start import QUIET

CALLS = ("open", "fsync", "rename", "replace", "unlink", "rmdir", "mkdir", "chmod", "link")
CONFIG = replace(
    TrainConfig(), content_dim=4, class_dim=8, adain_dim=8, loss="pyramid", batch_size=8, steps=4,
    save_every=1, log_every=2, grid_every=1000, device="cpu",
)  # fmt: skip
LAST = "checkpoints/latent-000000004"


def train(store: Path, run: Path) -> None:
    """Train a few steps like `lord-fast train`."""
    with hold_run(run):
        stage = LatentStage(CONFIG, ImageStore(store), set_up("cpu", "float32", 1))
        run_stage(stage, run, QUIET)


def kill_at(point: int) -> list[int]:
    """Count system calls from now on and kill the process before call number `point`."""
    count = [0]

    def counted(function):
        def call(*arguments, **options):
            count[0] += 1
            if count[0] == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    tensors._put = counted(tensors._put)
    return count


def in_child(work) -> int:
    """Run a function in a forked process and return its exit status."""
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            work()
            status = 0
        os._exit(status)
    return os.waitpid(child, 0)[1]


def read(run: Path) -> dict:
    """Read what must be equal, which is the last checkpoint, the statistics and the list of files.

    A kill after the last checkpoint has its name may leave an older one, whole, beside it.
    """
    rows = read_stats(run / "stats.jsonl")
    stats = [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]
    leftovers = [str(path) for path in run.rglob(".*.partial")]
    files = {file.name: file.read_bytes() for file in (run / LAST).iterdir()}
    return {"stats": stats, "leftovers": leftovers, "files": files}


def problem(store: Path, folder: Path, point: int, expected: dict) -> str | None:
    """Return what differs after a kill at a point and a second run, or None."""
    run = folder / f"run-{point}"

    def killed() -> None:
        kill_at(point)
        train(store, run)

    if not os.WIFSIGNALED(in_child(killed)):
        return "was not killed"
    steps = []
    for path in checkpoint.list_checkpoints(run / "checkpoints", "latent"):
        steps.append(checkpoint.load(path).step)
    if in_child(lambda: train(store, run)) != 0:
        return f"does not resume; whole checkpoints: {steps}"
    found = read(run)
    wrong = [name for name in expected if found[name] != expected[name]]
    shutil.rmtree(run)
    return f"differs: {wrong}" if wrong else None


def main(store: Path, folder: Path, points: int) -> None:
    """Count the calls of an undisturbed run, and kill others at `points` of them."""
    torch.set_num_threads(1)
    whole, counted = folder / "whole", folder / "count"
    train(store, whole)  # here, so that what is loaded when first used is not loaded by every fork

    def count() -> None:
        found = kill_at(-1)
        train(store, folder / "counted-run")
        counted.write_text(str(found[0]))

    assert in_child(count) == 0
    total, expected = int(counted.read_text()), read(whole)
    stride = max(total // points, 1)
    found = {n: problem(store, folder, n, expected) for n in range(1, total, stride)}
    print(json.dumps({"calls": total, "points": len(found), "wrong": {
        n: what for n, what in found.items() if what is not None
    }}))  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
