"""Tests how processes that train together end when one of them fails."""

import os
import re
import signal

import pytest

from lord_fast.run import checkpoint
from tests.processes import Crew, start
from tests.test_group import TRAIN

TIMEOUT = 4


@pytest.fixture
def endless(glyph_store, tmp_path):
    """Two processes in the middle of a long run."""
    flags = ("--steps", 100_000, "--save-every", 50_000, "--log-every", 1, "--timeout", TIMEOUT)
    run = tmp_path / "run"
    crew = start(2, ["train", glyph_store, "--run", run, *TRAIN, *flags], tmp_path, "slow")
    while not (run / "stats.jsonl").exists() or not (run / "stats.jsonl").read_text():
        assert crew.wait(0.05) == [None, None], crew.texts()
    yield crew, run
    crew.kill()


def test_a_signal_to_one_process_saves_all_at_the_same_step(endless):
    crew, run = endless
    os.kill(crew.processes[1].pid, signal.SIGTERM)
    assert crew.wait() == [143, 143]
    first, other = crew.texts()
    step = int(re.search(r"stopped by SIGTERM after step (\d+), all saved", first)[1])
    assert not other
    assert [path.name for path in (run / "checkpoints").iterdir()] == [f"latent-{step:09d}"]
    checkpoint.load(checkpoint.find(run / "checkpoints", "latent", step))


def test_the_others_end_when_a_process_is_killed(endless):
    crew, run = endless
    crew.processes[1].kill()
    assert crew.wait(TIMEOUT + 20) == [1, -signal.SIGKILL]
    check_line(crew, 0, missing=1)
    assert not list((run / "checkpoints").glob("*"))


def test_a_stopped_process_ends_the_others_and_then_itself(endless):
    crew, _ = endless
    os.kill(crew.processes[1].pid, signal.SIGSTOP)
    assert crew.wait(TIMEOUT + 20) == [1, None]
    check_line(crew, 0, missing=1)
    os.kill(crew.processes[1].pid, signal.SIGCONT)
    assert crew.wait(TIMEOUT + 20) == [1, 1]
    check_line(crew, 1, missing=0)


def check_line(crew: Crew, rank: int, missing: int) -> None:
    """Check that a process says in one line who it is, where it was and who is missing."""
    (line,) = [text for text in crew.texts()[rank].splitlines() if "did not answer" in text]
    assert re.search(rf"process {rank}, step \d+: process {missing} did not answer", line), line


def test_a_full_disk_in_one_process_saves_nothing_and_ends_all(glyph_store, tmp_path):
    run = tmp_path / "run"
    crew = start(2, ["train", glyph_store, "--run", run, *TRAIN], tmp_path, "full_disk")
    assert crew.wait() == [2, 2]
    first, other = crew.texts()
    assert "No space left on device" in other
    assert "process 1, step 3" in other
    assert "space" not in first
    assert list((run / "checkpoints").iterdir()) == []


def test_a_replica_that_differs_is_named_and_not_saved(glyph_store, tmp_path):
    run = tmp_path / "run"
    crew = start(4, ["train", glyph_store, "--run", run, *TRAIN], tmp_path, "flipped_bit")
    assert crew.wait() == [1, 1, 1, 1]
    assert "step 3: process 1 differs from process 0" in crew.texts()[0]
    assert not (run / "checkpoints").exists()
