"""The promises of docs/reliability.md, tried on this machine and this disk in under a minute."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from lord_fast import kernels
from lord_fast.atomic import atomic_write, sync
from lord_fast.kernels import reference
from lord_fast.lock import folder_lock

STEPS = 200
TRAIN = (
    "--preset", "demo", "--content-dim", "4", "--class-dim", "8", "--adain-dim", "8",
    "--batch-size", "8", "--steps", str(STEPS), "--save-every", "20", "--log-every", "200",
    "--grid-every", "200", "--device", "cpu", "--precision", "float32", "--threads", "1",
)  # fmt: skip
TRY_LOCK = """
import pathlib, sys
from lord_fast.lock import folder_lock
try:
    folder_lock(pathlib.Path(sys.argv[1])).__enter__()
except ValueError:
    print("refused")
"""
TOLERANCE = 1e-5
LONGEST = 300
"""Seconds that one process may take."""


def self_test(folder: Path) -> Iterator[tuple[str, str, bool]]:
    """Try what protects a run, in a temporary folder inside `folder`, which is removed again.

    Args:
        folder: On the disk to try, such as the folder of the runs. Made if need be.

    Yields:
        What was tried, what came of it, and whether it is as it should be.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checks: tuple[tuple[str, Callable[[Path], str]], ...] = (
        ("writing to the disk", _writes),
        ("lock of a run", _lock),
        ("kernels", _kernels),
        ("kill and resume", _kill_and_resume),
    )
    with tempfile.TemporaryDirectory(prefix=".lord-fast-self-test-", dir=folder) as temporary:
        for what, check in checks:
            place = Path(temporary) / check.__name__
            place.mkdir()
            try:
                yield what, check(place), True
            except (ValueError, OSError, subprocess.SubprocessError) as error:
                yield what, str(error), False


def _writes(place: Path) -> str:
    start = time.perf_counter()
    for content in (b"old", bytes(1 << 20)):
        atomic_write(place / "file", content)
    if (place / "file").read_bytes() != bytes(1 << 20):
        raise ValueError("a file that was written, synced and renamed holds something else")
    sync(place)
    seconds = (time.perf_counter() - start) / 2
    return f"a file is written, synced and renamed in {1000 * seconds:.1f} ms"


def _lock(place: Path) -> str:
    with folder_lock(place):
        said = _run("-c", TRY_LOCK, str(place))
    if "refused" not in said:
        raise ValueError(
            "a second process could take the lock of a run; on this disk start one process a run"
        )
    if "refused" in _run("-c", TRY_LOCK, str(place)):
        raise ValueError("the lock of a run stays after its process has ended")
    return "a second process is refused, and let in when the first has ended"


def _kernels(place: Path) -> str:
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    worst = max(_difference(device) for device in devices)
    if not worst <= TOLERANCE:
        raise ValueError(
            f"the fast kernels differ from the reference by {worst:.1e}, more than "
            f"{TOLERANCE:.0e}; train with --kernels reference, and please report it"
        )
    named = ", ".join(f"{device} {kernels.live(device)}" for device in devices)
    return f"{named}: equal to the reference within {TOLERANCE:.0e} (found {worst:.1e})"


def _difference(device: str) -> float:
    """The largest difference of codes, weights and moments after both operators."""
    generator = torch.Generator().manual_seed(0)
    weight, grad = (torch.randn(n, 19, generator=generator).to(device) for n in (64, 40))
    moments = [0.1 * torch.rand(64, 19, generator=generator).to(device) for _ in range(2)]
    last_step = torch.randint(0, 90, (64,), generator=generator).to(device)
    rows = torch.randint(0, 64, (40,), generator=generator).to(device)
    lr, step = torch.linspace(0.1, 0.01, 100, device=device), torch.tensor(90, device=device)
    adam = kernels.Adam()

    def both(
        gather: Callable[[kernels.Table], torch.Tensor], scatter: Callable[[kernels.Table], None]
    ) -> list[torch.Tensor]:
        table = kernels.Table(
            weight.clone(), moments[0].clone(), moments[1].clone(), last_step.clone()
        )
        codes = gather(table)
        scatter(table)
        return [codes, *table]

    live = both(
        lambda table: kernels.gather(table, rows, lr, step, adam=adam, std=1.0, seed=7),
        lambda table: kernels.scatter_adam_(table, rows, grad, lr, step, adam=adam),
    )
    wanted = both(
        lambda table: reference.gather(*table, rows, lr, step, rows, 1.0, 7, *adam),
        lambda table: reference.scatter_adam_(*table, rows, grad, lr, step, *adam),
    )
    return max(float((a - b).abs().max()) for a, b in zip(live, wanted, strict=True))


def _kill_and_resume(place: Path) -> str:
    store, whole, killed = place / "store", place / "whole", place / "killed"
    _run("-m", "lord_fast", "pack", "glyphs", str(store), "--size", "32", "--classes", "4")
    _run("-m", "lord_fast", "train", str(store), "--run", str(whole), *TRAIN)
    train = ("-m", "lord_fast", "train", str(store), "--run", str(killed), *TRAIN)
    step = _kill_after_a_save(train, killed / "checkpoints")
    _run(*train)
    last = f"checkpoints/latent-{STEPS:09d}"
    for file in sorted((whole / last).iterdir()):
        if file.read_bytes() != (killed / last / file.name).read_bytes():
            raise ValueError(f"{file.name} of the run that was killed and resumed is another one")
    return f"a training killed after step {step} of {STEPS} resumed, with the same bytes at the end"


def _kill_after_a_save(train: tuple[str, ...], checkpoints: Path) -> int:
    """Start a training and kill it once it has saved; the step of its last checkpoint."""
    child = subprocess.Popen((sys.executable, *train), stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, env=_environment())  # fmt: skip
    end = time.monotonic() + LONGEST
    try:
        while not any(checkpoints.glob("latent-*")):
            if child.poll() is not None or time.monotonic() > end:
                raise ValueError("the training to be killed has saved nothing")
            time.sleep(0.005)
    finally:
        child.kill()
        child.wait()
    return max(int(path.name[-9:]) for path in checkpoints.glob("latent-*"))


def _run(*arguments: str) -> str:
    """Run this Python; what it printed.

    Raises:
        ValueError: it failed.
    """
    done = subprocess.run((sys.executable, *arguments), capture_output=True, text=True,
                          timeout=LONGEST, env=_environment())  # fmt: skip
    if done.returncode:
        raise ValueError(f"lord-fast ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def _environment() -> dict[str, str]:
    """The processes find this very package, wherever they run."""
    home = str(Path(__file__).resolve().parents[1])
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
