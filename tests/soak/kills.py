"""Kill, signal and starve every verb that writes, at random moments, and let it try again.

Usage: python -m tests.soak.kills [--count 200] [--verbs train,pack,...] [--ways kill,signal,...]

Ways: kill (SIGKILL), signal (SIGTERM or SIGINT, once or twice), eio and enospc (one system call of
a verb fails: open, fsync, rename and so on). After each, the same command runs again, and what it
makes must have the bytes that an undisturbed command makes. Prints one JSON object.
"""

import argparse
import contextlib
import errno
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from lord_fast.cli import main as lord_fast
from lord_fast.run import checkpoint
from lord_fast.run.stats import read_stats
from tests.crash_points import CALLS

SMALL = (
    "--batch-size", "8", "--steps", "6", "--threads", "1", "--device", "cpu", "--save-every", "1",
    "--log-every", "2", "--grid-every", "4",
)  # fmt: skip
TRAIN = (
    *SMALL, "--content-dim", "4", "--class-dim", "4", "--adain-dim", "8", "--loss", "pyramid",
)  # fmt: skip
VERBS = ("train", "train-encoders", "pack", "split", "export")
LEFT = {
    ".lord-fast-partial",
    "packing.json",
    ".lock",
    "history.jsonl",
    "index.jsonl.crc32",
    "left_out.jsonl.crc32",
}
"""What may lie in a folder besides: history.jsonl has the time, the others mark a kill at the very
end."""


def prepare(folder: Path) -> None:
    """A store, a finished stage 1 and images to pack."""
    from tests.soak.damage import write_images

    for words in (
        ("pack", "glyphs", folder / "store", "--size", "32", "--classes", "8"),
        ("train", folder / "store", "--run", folder / "latent", *TRAIN),
        ("train-encoders", folder / "latent", *SMALL, "--encoder-dim", "8"),
    ):
        assert lord_fast([str(word) for word in words]) == 0
    write_images(folder / "images", each=100)
    shutil.copytree(folder / "latent", folder / "stage-1")
    for path in (folder / "stage-1" / "checkpoints").glob("encoders-*"):
        shutil.rmtree(path)


def command(verb: str, folder: Path, out: Path) -> list[str]:
    """The command line of a verb that writes below `out`."""
    if verb == "train-encoders" and not (out / "run").exists():
        shutil.copytree(folder / "stage-1", out / "run")
    words: dict[str, tuple] = {
        "train": ("train", folder / "store", "--run", out / "run", *TRAIN),
        "train-encoders": ("train-encoders", out / "run", *SMALL, "--encoder-dim", "8"),
        "pack": ("pack", folder / "images", out / "store", "--size", "8", "--workers", "1"),
        "split": ("split", folder / "store", out / "a", out / "b", "--images", "0.3"),
        "export": ("export", folder / "latent", "--out", out / "exported", "--no-onnx"),
    }
    return [str(word) for word in words[verb]]


def result(verb: str, out: Path) -> dict[str, object]:
    """What must not differ: files and their bytes; of a run its last checkpoint and statistics."""
    if not verb.startswith("train"):
        found = [file for file in out.rglob("*") if file.is_file() and file.name not in LEFT]
        return {str(file.relative_to(out)): file.read_bytes() for file in found}
    stage = "latent" if verb == "train" else "encoders"
    last = checkpoint.latest(out / "run" / "checkpoints", stage)
    assert last is not None
    rows = read_stats(out / "run" / "stats.jsonl")
    stats = [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]
    # An old checkpoint that could not be removed may stay until the next training.
    leftovers = [p.name for p in out.rglob(".*.partial") if not p.name.endswith(".old.partial")]
    files: dict[str, object] = {file.name: file.read_bytes() for file in last.iterdir()}
    return files | {"stats": stats, "leftovers": leftovers}


def fork(work: Callable[[], int]) -> int:
    """Start in a child that says nothing; its process id."""
    child = os.fork()
    if child:
        return child
    status = 99
    with contextlib.suppress(BaseException), Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        status = work()
    os._exit(status)


def fail_at(point: int, code: int) -> list[int]:
    """Count the calls from now on; the `point`-th fails as the system would have it."""
    count = [0]

    def counted(function):
        def call(*arguments, **options):
            count[0] += 1
            if count[0] == point:
                raise OSError(code, os.strerror(code))
            return function(*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    return count


class Battery:
    """Attacks on one verb.

    Args:
        verb: One of `VERBS`.
        folder: See `prepare`.
    """

    def __init__(self, verb: str, folder: Path):
        self.verb, self.folder = verb, folder
        whole = folder / f"{verb}-whole"
        whole.mkdir()
        words, start = command(verb, folder, whole), time.monotonic()
        child = fork(lambda: lord_fast(words))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        self.seconds, self.expected = time.monotonic() - start, result(verb, whole)
        self.calls = self._count(folder / f"{verb}-count")

    def _count(self, out: Path) -> int:
        out.mkdir()
        words, file = command(self.verb, self.folder, out), self.folder / f"{self.verb}-calls"

        def counted() -> int:
            found = fail_at(-1, 0)
            status = lord_fast(words)
            file.write_text(str(found[0]))
            return status

        os.waitpid(fork(counted), 0)
        return int(file.read_text())

    def attack(self, way: str, number: int, rng: random.Random) -> str:
        """One attack and a second run: `same`, or what is wrong."""
        out = self.folder / f"{self.verb}-{way}-{number}"
        out.mkdir()
        words = command(self.verb, self.folder, out)
        disturbed = self._disturb(way, words, rng)
        if disturbed not in self._allowed(way):
            return f"{way}: exit code {disturbed}"
        again = os.waitstatus_to_exitcode(os.waitpid(fork(lambda: lord_fast(words)), 0)[1])
        found = result(self.verb, out)
        if found != self.expected:
            names = [n for n in {*found, *self.expected} if found.get(n) != self.expected.get(n)]
            return f"{way}: differs: {sorted(names)[:3]}, exit codes {disturbed}, {again}"
        if again not in (0, 2):  # 2: it was whole already
            return f"{way}: exit code {again} of the second run"
        shutil.rmtree(out)
        return "same"

    def _disturb(self, way: str, words: list[str], rng: random.Random) -> int:
        if way in ("eio", "enospc"):
            point = rng.randint(1, self.calls)
            code = errno.EIO if way == "eio" else errno.ENOSPC

            def failing() -> int:
                fail_at(point, code)
                return lord_fast(words)

            return os.waitstatus_to_exitcode(os.waitpid(fork(failing), 0)[1])
        child = fork(lambda: lord_fast(words))
        time.sleep(rng.uniform(0, 1.1 * self.seconds))
        if way == "kill":
            os.kill(child, signal.SIGKILL)
        else:
            for signum in rng.choice((["SIGTERM"], ["SIGINT"], ["SIGTERM", "SIGTERM"],
                                      ["SIGINT", "SIGINT"], ["SIGTERM", "SIGKILL"])):  # fmt: skip
                os.kill(child, getattr(signal, signum))
                time.sleep(rng.choice((0, 0.001, 0.01)))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def _allowed(self, way: str) -> tuple[int, ...]:
        if way == "kill":
            return (0, -signal.SIGKILL)
        if way == "signal":  # 0: it came too late; negative: before or after the handler is set
            return (0, 130, 143, -signal.SIGTERM, -signal.SIGINT, -signal.SIGKILL, 99)
        return (0, 2)


def attacks(folder: Path, verbs: list[str], ways: list[str], count: int, seed: int) -> dict:
    """`count` attacks of each way on each verb."""
    torch.set_num_threads(1)
    prepare(folder)
    found: dict[str, dict] = {}
    for verb in verbs:
        battery, rng = Battery(verb, folder), random.Random(f"{seed} {verb}")
        outcomes: Counter[str] = Counter()
        for way in ways:
            for number in range(count):
                outcome = battery.attack(way, number, rng)
                outcomes[f"{way}: same" if outcome == "same" else outcome] += 1
        found[verb] = {"calls": battery.calls, **outcomes}
        print(json.dumps({verb: found[verb]}), file=sys.stderr, flush=True)
    return found


def wrong(found: dict) -> dict:
    """The outcomes that are not as they should be."""
    bad = {
        verb: [what for what in outcomes if what != "calls" and not what.endswith(": same")]
        for verb, outcomes in found.items()
    }
    return {verb: what for verb, what in bad.items() if what}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--verbs", default=",".join(VERBS))
    parser.add_argument("--ways", default="kill,signal,eio,enospc")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        verbs, ways = given.verbs.split(","), given.ways.split(",")
        found = attacks(Path(temporary), verbs, ways, given.count, given.seed)
    print(json.dumps({"found": found, "wrong": wrong(found)}))
    sys.exit(bool(wrong(found)))


if __name__ == "__main__":
    main()
