"""Fill a real small disk (a tmpfs) in the middle of every verb that writes. Linux, as root.

Usage: python -m tests.soak.full_disk [--count 20] [--verbs train,pack,...]

Each time: a verb runs on a disk of a random size, smaller than what it writes, or with too few
inodes. It must end with exit code 2. Then the disk grows and the same command must make the bytes
of an undisturbed one.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch

from lord_fast.cli import main as lord_fast
from tests.soak.kills import VERBS, Battery, command, fork, prepare, result

PAGE = 4096


def mount(folder: Path, options: str) -> bool:
    """Put a tmpfs on a folder, or change the options of the one that is there."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True
    )
    return done.returncode == 0


def used(folder: Path) -> int:
    """Bytes of the files below a folder, each a whole number of pages."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return sum(-(-file.stat().st_size // PAGE) * PAGE for file in files)


def attack(battery: Battery, folder: Path, kind: str, rng: random.Random) -> str:
    """One full disk: `same`, or what is wrong."""
    out = Path(tempfile.mkdtemp(dir=folder))
    first = used(folder / "stage-1") if battery.verb == "train-encoders" else 0
    most = used(folder / f"{battery.verb}-whole") - first
    size = first + rng.randrange(PAGE, max(most, 2 * PAGE))
    inodes = rng.randrange(60, 90) if first else rng.randrange(3, 20)
    if not mount(out, f"size={size}" if kind == "bytes" else f"nr_inodes={inodes}"):
        return "cannot mount"
    try:
        words = command(battery.verb, folder, out)
        full = os.waitstatus_to_exitcode(os.waitpid(fork(lambda: lord_fast(words)), 0)[1])
        if not mount(out, "remount,size=100%,nr_inodes=0"):
            return "cannot remount"
        os.waitpid(fork(lambda: lord_fast(words)), 0)
        found = result(battery.verb, out)
        if full not in (0, 2):
            return f"exit code {full}"
        return "same" if found == battery.expected else f"differs, exit code {full}"
    except OSError as error:  # the copy of stage 1 did not fit
        return f"not tried: {error.strerror}"
    finally:
        subprocess.run(["umount", out], check=True)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--verbs", default=",".join(VERBS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    bad = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if not mount(folder, "size=4g"):
            print("skipped: this needs root and a Linux that lets it mount a tmpfs")
            return
        try:
            prepare(folder)
            for verb in given.verbs.split(","):
                battery, rng, found = Battery(verb, folder), random.Random(verb), Counter[str]()
                for number in range(given.count):
                    kind = "inodes" if number % 4 == 3 else "bytes"
                    found[f"{kind}: {attack(battery, folder, kind, rng)}"] += 1
                print(json.dumps({verb: found}), flush=True)
                bad |= any("differs" in what or "exit code" in what for what in found)
        finally:
            # Lazily: this process may still have files of the store mapped.
            subprocess.run(["umount", "--lazy", folder], check=True)
    sys.exit(bad)


if __name__ == "__main__":
    main()
