"""Tests training under the real torchrun, which starts, restarts and re-forms the processes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from lord_fast.launch import STORE
from lord_fast.run import checkpoint
from tests.test_group import TRAIN, hashes, latent

ROOT = Path(__file__).parents[1]


def torchrun(log: Path, *words, restarts: int = 0, **variables) -> subprocess.Popen:
    """Start two processes with torchrun."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", 2, "--standalone",
        "--max-restarts", restarts, "-m", "lord_fast", "--", *words,
    ]  # fmt: skip
    environment = {**os.environ, STORE: "1", **variables}
    return subprocess.Popen(
        [str(word) for word in command], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
        stderr=log.open("w"),
    )  # fmt: skip


def workers(agent: subprocess.Popen) -> list[psutil.Process]:
    """Return the processes that torchrun has started."""
    children = psutil.Process(agent.pid).children(recursive=True)
    return [child for child in children if "lord_fast" in " ".join(child.cmdline())]


def kill_one(agent: subprocess.Popen, run: Path, step: int) -> None:
    """Kill a random process when the checkpoint of a step is there."""
    while checkpoint.steps_done(run / "checkpoints", "latent") < step:
        assert agent.poll() is None
        time.sleep(0.01)
    random.choice(workers(agent)).send_signal(signal.SIGKILL)


def kill_and_restart(store: Path, folder: Path, kills: int, every: int = 3) -> Path:
    """Train with torchrun, which restarts the processes after each kill. Return the run."""
    run = folder / "run"
    words = ["train", store, "--run", run, *TRAIN, "--steps", every * (kills + 3)]
    agent = torchrun(folder / "log", *words, restarts=kills)
    for kill in range(kills):
        kill_one(agent, run, every * (kill + 1))
    assert agent.wait(300) == 0, (folder / "log").read_text()
    return run


def test_a_killed_process_is_restarted_and_the_run_has_the_same_bits(glyph_store, tmp_path):
    from tests import test_group

    broken = kill_and_restart(glyph_store, tmp_path, kills=1)
    whole = test_group.train(1, glyph_store, tmp_path / "whole", "--steps", 12)
    expected = latent(hashes(whole))
    found = {name: digest for name, digest in hashes(broken).items() if "latent-" in name}
    assert found == {name: expected[name] for name in found}
    assert any("000000012/" in name for name in found)


def test_a_shared_store_is_refused(glyph_store, tmp_path):
    log = tmp_path / "log"
    agent = torchrun(log, "train", glyph_store, "--run", tmp_path / "run", **{STORE: "0"})
    assert agent.wait(120) == 1
    assert "start it with: TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun" in log.read_text()
    assert "exitcode  : 2" in log.read_text()
    assert not (tmp_path / "run").exists()
