"""Train for a long time, save often, and watch memory and open files.

Usage: python -m tests.soak.growth [--minutes 120] [--folder FOLDER] [--json FILE]

Trains the embedded glyphs at a small size in a process of its own and looks at it every 10
seconds, from its first checkpoint on. The first tenth of that time is the warm-up. Fails (exit code
1) if the memory of the last tenth is more than 2 % above that of the tenth after the warm-up, or if
more files are open.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

MOST_GROWTH = 0.02
FIRST = "latent-000000100"
"""The watch begins with the first checkpoint: on a busy machine the start takes minutes."""
SMALL = (
    "--preset", "demo", "--content-dim", "8", "--class-dim", "16", "--adain-dim", "8",
    "--batch-size", "8", "--threads", "1", "--device", "cpu", "--steps", "1000000",
    "--save-every", "100", "--log-every", "20", "--grid-every", "200",
)  # fmt: skip


def lord_fast(*arguments: object) -> list[str]:
    """The command line of a verb, with this Python."""
    return [sys.executable, "-m", "lord_fast", *map(str, arguments)]


def watch(process: psutil.Process, seconds: float, every: float) -> list[dict]:
    """Samples of a process: seconds since the start, resident bytes, open descriptors."""
    start, samples = time.monotonic(), []
    while (now := time.monotonic() - start) < seconds and process.is_running():
        samples.append(
            {"s": round(now), "rss": process.memory_info().rss, "fds": process.num_fds()}
        )
        time.sleep(every)
    return samples


def wait_for(path: Path, child: subprocess.Popen) -> None:
    """Until a file or folder is there, or the process has ended."""
    while not path.exists() and child.poll() is None:
        time.sleep(0.1)


def growth(samples: list[dict]) -> dict:
    """What changed between the tenth after the warm-up and the last tenth."""
    tenth = max(len(samples) // 10, 1)
    parts = samples[tenth : 2 * tenth], samples[-tenth:]
    rss = [statistics.median(s["rss"] for s in part) for part in parts]
    fds = [statistics.median(s["fds"] for s in part) for part in parts]
    return {
        "samples": len(samples), "rss_before": rss[0], "rss_after": rss[1],
        "growth": rss[1] / rss[0] - 1, "fds_before": fds[0], "fds_after": fds[1],
    }  # fmt: skip


def soak(folder: Path, seconds: float, every: float = 10) -> dict:
    """Train and watch; the run is stopped by SIGTERM and must end with 143."""
    store, run = folder / "store", folder / "run"
    subprocess.run(lord_fast("pack", "glyphs", store, "--size", 32), check=True)
    with (folder / "log").open("w") as log:
        child = subprocess.Popen(
            lord_fast("train", store, "--run", run, *SMALL), stdout=log, stderr=log
        )
        try:
            wait_for(run / "checkpoints" / FIRST, child)
            samples = watch(psutil.Process(child.pid), seconds, every)
        finally:
            child.send_signal(signal.SIGTERM)
            status = child.wait()
    steps = json.loads((run / "stats.jsonl").read_text().splitlines()[-1])["step"]
    return {**growth(samples), "steps": steps, "exit": status, "all": samples}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = soak(given.folder or Path(temporary), 60 * given.minutes)
    if given.json:
        given.json.write_text(json.dumps(found))
    print(json.dumps({k: v for k, v in found.items() if k != "all"}))
    leaks = found["growth"] > MOST_GROWTH or found["fds_after"] > found["fds_before"]
    sys.exit(1 if leaks or found["exit"] != 143 else 0)


if __name__ == "__main__":
    main()
