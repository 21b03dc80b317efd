"""Measure every verb at growing numbers of classes.

Usage: python -m tests.soak.classes [--classes 1000 10000 100000] [--verbs pack,split,...]

Makes .npz sources of tiny images (3 of each class) and runs pack, verify, split, open, train (20
steps), train-encoders (20 steps), evaluate and export in processes of their own. Prints one line a
verb: seconds of CPU and peak memory for each number of classes. The start of Python and PyTorch is
part of every figure; `open` shows it alone with the smallest store.
"""

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SIZE, EACH = 32, 3
TINY = (
    "--content-dim", "8", "--class-dim", "8", "--adain-dim", "8", "--loss", "pyramid",
    "--batch-size", "32", "--steps", "20", "--threads", "1", "--device", "cpu",
    "--log-every", "10", "--save-every", "10", "--grid-every", "20",
)  # fmt: skip
ENCODERS = (
    "--encoder-dim", "8", "--batch-size", "32", "--steps", "20", "--threads", "1",
)  # fmt: skip
OPEN = "import sys, pathlib\nfrom lord_fast.data.store import ImageStore\n"
OPEN += "ImageStore(pathlib.Path(sys.argv[1]))"


def write_source(file: Path, classes: int) -> None:
    """An .npz of noise whose images differ in brightness by class and in a corner by content."""
    rng = np.random.default_rng(0)
    count = classes * EACH
    images = rng.integers(0, 64, (count, SIZE, SIZE, 1), dtype=np.uint8)
    ids = np.arange(count)
    images += (ids // EACH % 128).astype(np.uint8)[:, None, None, None]
    images[:, :4, :4] += (60 * (ids % EACH)).astype(np.uint8)[:, None, None, None]
    np.savez(file, imgs=images, classes=ids // EACH, contents=ids % EACH)


def commands(folder: Path) -> dict[str, list[str]]:
    """Verb -> the arguments of Python that run it."""
    source, store, run = folder / "source.npz", folder / "store", folder / "run"
    verbs: dict[str, tuple] = {
        "pack": ("pack", source, store, "--size", SIZE, "--format", "npz"),
        "verify": ("pack", "--verify", store),
        "split": ("split", store, folder / "train", folder / "test", "--images", "0.3"),
        "split-classes": ("split", store, folder / "a", folder / "b", "--classes", "300"),
        "train": ("train", store, "--run", run, *TINY),
        "train-encoders": ("train-encoders", run, *ENCODERS),
        "evaluate": ("evaluate", run),
        "evaluate-encoder": ("evaluate", run, "--codes", "encoder", "--store", folder / "test"),
        "sample": ("sample", run, "-n", "16", "--out", folder / "grid.png"),
        "report": ("report", run),
        "export": ("export", run, "--out", folder / "out", "--no-onnx"),
    }
    found = {name: ["-m", "lord_fast", *map(str, words)] for name, words in verbs.items()}
    return {**found, "open": ["-c", OPEN, str(store)]}


def measure(arguments: list[str], seconds: int) -> dict:
    """Seconds of CPU and peak bytes of a process; `exit` is None where it was stopped."""
    child = subprocess.Popen(
        ["timeout", str(seconds), sys.executable, *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    said = child.stderr.read()  # type: ignore[union-attr]
    _, status, used = os.wait4(child.pid, 0)
    cpu = used.ru_utime + used.ru_stime
    code = os.waitstatus_to_exitcode(status)
    child.returncode = code
    if code:
        print(said[-400:], file=sys.stderr)
    scale = 1 if sys.platform == "darwin" else 1024
    return {"cpu_s": round(cpu, 2), "peak": used.ru_maxrss * scale, "exit": code}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--verbs", help="comma-separated; default: all")
    parser.add_argument("--timeout", type=int, default=3600)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as temporary:
        for classes in given.classes:
            folder = (given.folder or Path(temporary)) / str(classes)
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "source.npz").exists():
                # In a process of its own, because a child starts with the peak of its parent.
                maker = multiprocessing.get_context("spawn").Process(
                    target=write_source, args=(folder / "source.npz", classes)
                )
                maker.start()
                maker.join()
            for verb, arguments in commands(folder).items():
                if not given.verbs or verb in given.verbs.split(","):
                    row = {"classes": classes, "verb": verb, **measure(arguments, given.timeout)}
                    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
