"""Trains in several processes under torchrun: many launches, kills, and two network namespaces.

`python -m tests.soak.processes --launches 50 --kills 5 --network` runs all of it. The last part
needs root and the command `ip`. It counts the bytes between two namespaces and cuts the link.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources.glyphs import Glyphs
from lord_fast.launch import STORE
from lord_fast.model.build import build_decoder
from lord_fast.run.config import load_config
from tests.test_group import TRAIN
from tests.test_torchrun import ROOT, kill_and_restart, torchrun

SPACES = ("lord0", "lord1")
TIMEOUT = 10


def launches(store: Path, folder: Path, count: int) -> None:
    """Start torchrun many times. Every launch must exit with 0."""
    for number in range(count):
        words = ["train", store, "--run", folder / f"launch-{number}", *TRAIN, "--steps", 2]
        code = torchrun(folder / "log", *words).wait(300)
        assert code == 0, (number, (folder / "log").read_text())
    print(f"{count} launches: all exit with 0")


def kills(store: Path, folder: Path, count: int) -> None:
    """Kill random processes. The run must end with the bytes of an undisturbed one."""
    steps = 3 * (count + 3)
    broken = kill_and_restart(store, folder / "broken", count)
    whole = folder / "whole"
    words = ["train", store, "--run", whole, *TRAIN, "--steps", steps]
    assert torchrun(folder / "log", *words).wait(600) == 0
    last = f"checkpoints/latent-{steps:09d}"
    assert files(broken / last) == files(whole / last)
    print(f"{count} kills and restarts: the same bytes")


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def network(store: Path, folder: Path) -> None:
    """Train in two network namespaces, count the bytes between them and cut the link."""
    for name in SPACES:
        ip("netns", "add", name)
    try:
        connect()
        count_bytes(store, folder)
        cut_link(store, folder)
    finally:
        for name in SPACES:
            ip("netns", "del", name)


def connect() -> None:
    ip(
        "link",
        "add",
        "veth0",
        "netns",
        SPACES[0],
        "type",
        "veth",
        "peer",
        "veth1",
        "netns",
        SPACES[1],
    )
    for number, name in enumerate(SPACES):
        inside = ("netns", "exec", name, "ip")
        ip(*inside, "addr", "add", f"10.99.0.{number + 1}/24", "dev", f"veth{number}")
        ip(*inside, "link", "set", f"veth{number}", "up")
        ip(*inside, "link", "set", "lo", "up")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def sent(number: int) -> int:
    """Return the bytes that a namespace has sent."""
    file = f"/sys/class/net/veth{number}/statistics/tx_bytes"
    command = ["ip", "netns", "exec", SPACES[number], "cat", file]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def start(store: Path, run: Path, folder: Path, *flags) -> list[subprocess.Popen]:
    """Start one torchrun in each namespace."""
    started = []
    for number, name in enumerate(SPACES):
        command = [
            "ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run",
            "--nnodes", 2, "--node-rank", number, "--nproc-per-node", 1, "--rdzv-backend", "c10d",
            "--rdzv-endpoint", "10.99.0.1:29555", "--local-addr", f"10.99.0.{number + 1}",
            "--rdzv-id", run.name, "--rdzv-conf", f"is_host={1 - number}", "-m", "lord_fast", "--",
            "train", store, "--run", run, *TRAIN,
            "--timeout", TIMEOUT, *flags,
        ]  # fmt: skip
        environment = {**os.environ, STORE: "1", "GLOO_SOCKET_IFNAME": f"veth{number}"}
        log = (folder / f"{run.name}-{number}.log").open("w")
        started.append(
            subprocess.Popen([str(word) for word in command], cwd=ROOT, env=environment, stderr=log)
        )
    return started


def count_bytes(store: Path, folder: Path) -> None:
    """Count the bytes of two lengths. Their difference is the cost of the steps between."""
    found, dim, batch = [], 512, 128
    for steps in (20, 220):
        before = sent(0)
        flags = (
            "--steps", steps, "--save-every", 1000, "--log-every", 1000, "--grid-every", 1000,
            "--content-dim", dim, "--batch-size", batch,
        )  # fmt: skip
        processes = start(store, folder / f"bytes-{steps}", folder, *flags)
        codes = [process.wait(300) for process in processes]
        assert codes == [0, 0], [log.read_text()[-3000:] for log in folder.glob("*.log")]
        found.append(sent(0) - before)
    config, _ = load_config(folder / "bytes-20" / "config.yaml")
    parameters = sum(p.numel() for p in build_decoder(config, 32, 1).parameters())
    # The scalars of the log are summed with the gradients.
    counted = 4 * (parameters + 3) + batch // 2 * (4 * config.model.class_dim + 8)
    print(f"process 0 sends {(found[1] - found[0]) / 200:,.0f} bytes a step, headers included")
    print(f"sum of gradients and class gradients: {counted:,} bytes")
    print(f"content codes of its half of the batch, not sent: {4 * dim * batch // 2:,} bytes")


def cut_link(store: Path, folder: Path) -> None:
    """Take the link down in the middle of a run. Both ends must end within the time-out + 5 s."""
    run = folder / "cut"
    processes = start(store, run, folder, "--steps", 100_000, "--save-every", 50_000)
    while not (run / "stats.jsonl").exists():
        time.sleep(0.1)
    ip("netns", "exec", SPACES[0], "ip", "link", "set", "veth0", "down")
    begin = time.monotonic()
    logs = [folder / f"cut-{number}.log" for number in range(2)]
    while not all("did not answer" in log.read_text() for log in logs):
        assert time.monotonic() - begin < TIMEOUT + 5
        time.sleep(0.1)
    print(
        f"link down: both ends say so after {time.monotonic() - begin:.1f} s (--timeout {TIMEOUT})"
    )
    for log in logs:
        print(re.search(r"process \d, step .*", log.read_text())[0][:120])
    # The second torchrun waits for the store of the first one, which the link leads to.
    ip("netns", "exec", SPACES[0], "ip", "link", "set", "veth0", "up")
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(300)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--launches", type=int, default=0)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--network", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = folder / "store"
        pack(Glyphs(32, 8, rotations=(0, 30)), store, PackConfig(size=32))
        if chosen.network:
            network(store, folder)
        if chosen.kills:
            (folder / "broken").mkdir()
            kills(store, folder, chosen.kills)
        if chosen.launches:
            launches(store, folder, chosen.launches)


if __name__ == "__main__":
    main()
