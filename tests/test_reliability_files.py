"""Tests a run's configuration, lock, permissions and the files that failures leave."""

import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lord_fast.atomic import atomic_write
from lord_fast.cli import main
from lord_fast.errors import Interrupted
from lord_fast.lock import LOCK, folder_lock
from lord_fast.run import checkpoint, snapshot
from lord_fast.run.config import load_config
from lord_fast.run.snapshot import save
from lord_fast.train.latent import LatentStage
from lord_fast.train.loop import run_stage
from tests.test_checkpoint import some_state
from tests.test_cli import fails
from tests.test_reliability import (
    SHORT_FLAGS,
    names_of,
    rows_of,
    run_of,
    stage_of,
)
from tests.test_train import ROOT, StopAfter, flags, train

# The configuration


def test_flipped_bits_of_the_configuration_are_noticed_or_harmless(short_run, tmp_path):
    file = tmp_path / "config.yaml"
    whole = (short_run / "config.yaml").read_bytes()
    file.write_bytes(whole)
    expected, noticed = load_config(file), 0
    for bit in random.Random(0).sample(range(8 * len(whole)), 300):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        try:
            found = load_config(file)
        except ValueError:
            noticed += 1
        else:
            assert found == expected
    assert noticed > 250


def test_an_edited_configuration_says_what_to_do(short_run, tmp_path):
    file = tmp_path / "config.yaml"
    lines = (short_run / "config.yaml").read_text().splitlines(keepends=True)
    edited = [line.replace("content_std: 1.0", "content_std: 2.0") for line in lines]
    file.write_text("".join(edited))
    with pytest.raises(ValueError, match="delete its first line if you edited it on purpose"):
        load_config(file)
    file.write_text("".join(edited[1:]))
    assert load_config(file)[0].model.content_std == 2.0
    file.write_text("".join(lines[:-1]))  # cut short
    with pytest.raises(ValueError, match="damaged or edited"):
        load_config(file)


@pytest.mark.parametrize("text", [
    "5: 1\nlr: 2\n", "data:\n  5: 1\n  b: 2\n", "a: " + "[" * 3000 + "]" * 3000,
])  # fmt: skip
def test_other_yaml_than_a_configuration_is_refused(tmp_path, text):
    """Keys that are numbers, and nesting that exceeds Python's stack."""
    for first in ("", f"# sha256 {'0' * 64} of this content; delete this line if you edit it\n"):
        (tmp_path / "config.yaml").write_text(first + text)
        with pytest.raises(ValueError, match=r"config\.yaml: (not the configuration|damaged)"):
            load_config(tmp_path / "config.yaml")


def test_a_configuration_with_aliases_is_refused(tmp_path):
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 30))]
    bomb = "\n".join(lines)
    (tmp_path / "config.yaml").write_text(bomb)
    with pytest.raises(ValueError, match="aliases"):
        load_config(tmp_path / "config.yaml")


# Only one process may train in a run


def test_a_second_process_is_refused_and_changes_nothing(glyph_store, short_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(short_run, run)
    shutil.rmtree(run / "checkpoints" / "latent-000000012")
    with folder_lock(run):
        before = {f: f.read_bytes() for f in sorted(run.rglob("*")) if f.is_file()}
        error = fails(capsys, "train", glyph_store, "--run", run, *flags(), *SHORT_FLAGS)
        assert f"{run}: in use by process {os.getpid()} on " in error
        assert {f: f.read_bytes() for f in sorted(run.rglob("*")) if f.is_file()} == before
    assert train(glyph_store, run, *SHORT_FLAGS) == 0


def test_the_lock_of_a_killed_process_does_not_block(tmp_path):
    code = (
        "import sys, os, pathlib; from lord_fast.lock import folder_lock\n"
        "with folder_lock(pathlib.Path(sys.argv[1])):\n"
        "    child = os.fork()\n"  # as a pool of workers does
        "    if child == 0:\n"
        "        import time; print(os.getpid(), flush=True); os.close(1); time.sleep(60)\n"
        "    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(ValueError, match=f"in use by process {holder.pid} on"):
            folder_lock(tmp_path).__enter__()
        holder.kill()
        holder.wait()
        assert str(holder.pid) in (tmp_path / LOCK).read_text()
        with folder_lock(tmp_path):
            assert str(os.getpid()) in (tmp_path / LOCK).read_text()
    finally:
        os.kill(child, signal.SIGKILL)


# Files and folders


def test_files_have_the_permissions_of_the_umask(short_run, tmp_path):
    old = os.umask(0o022)
    try:
        save(tmp_path, "latent", 1, some_state())
        out = tmp_path / "exported"
        assert main(["export", str(short_run), "--out", str(out), "--no-onnx"]) == 0
    finally:
        os.umask(old)
    files = [f for f in tmp_path.rglob("*") if f.is_file()]
    assert {f.name for f in files} >= {"decoder.safetensors", "model.safetensors", "state.json"}
    assert {f"{f.stat().st_mode & 0o777:o}" for f in files} == {"644"}


def test_only_leftovers_of_killed_processes_are_removed(glyph_store, short_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(short_run, run)
    shutil.rmtree(run / "checkpoints" / "latent-000000012")
    ours = [
        run / "checkpoints" / ".latent-000000012.partial",
        run / "checkpoints" / ".latent-000000004.old.partial",
    ]
    for folder in ours:
        folder.mkdir()
        (folder / "content.safetensors").write_bytes(b"half")
    ours += [
        run / ".stats.jsonl.abcd_123.partial",
        run / "grids" / ".latent-000000012.png.x.partial",
    ]
    for file in ours[2:]:
        file.touch()
    mine = [run / ".thesis.tex.partial", run / "checkpoints" / ".best-000000012.partial"]
    for file in mine:
        file.touch()
    assert train(glyph_store, run, *SHORT_FLAGS) == 0
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in mine)


def test_an_old_checkpoint_that_cannot_be_removed_is_reported_once(
    glyph_store, tmp_path, monkeypatch
):
    rmtree = shutil.rmtree

    def busy(path, ignore_errors=False):
        if not ignore_errors:
            raise OSError(errno.EBUSY, "Device or resource busy", str(path))
        if "old" not in path.name:
            rmtree(path, ignore_errors=True)

    monkeypatch.setattr(snapshot.shutil, "rmtree", busy)
    said = run_of(stage_of(glyph_store, save_every=2), tmp_path / "run")
    assert said.count("cannot be removed") == 1
    assert checkpoint.steps_done(tmp_path / "run" / "checkpoints", "latent") == 12


def full_disk(*arguments):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_run_that_failed_before_its_first_checkpoint_does_not_block_its_folder(
    glyph_store, tmp_path, capsys, monkeypatch
):
    run = tmp_path / "run"
    run.mkdir()
    (run / LOCK).touch()
    (run / ".config.yaml.abcd_123.partial").touch()
    with monkeypatch.context() as patch:
        patch.setattr(LatentStage, "step", full_disk)
        assert train(glyph_store, run, *SHORT_FLAGS) == 2
    assert (run / "config.yaml").is_file()
    assert train(glyph_store, run, *SHORT_FLAGS, "--lr", "0.001") == 0
    assert load_config(run / "config.yaml")[0].adam.lr == 0.001


def test_a_write_that_fails_names_the_file_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match=r"No space left on device: '.*metrics\.json'"):
        atomic_write(tmp_path / "metrics.json", "{}")
    assert os.listdir(tmp_path) == []


def test_stats_after_a_kill_equal_those_of_an_undisturbed_run(glyph_store, tmp_path):
    """The checkpoint lies between two lines, and the means still cover the same steps."""
    changes = {"log_every": 5, "save_every": 3}
    run_of(stage_of(glyph_store, **changes), tmp_path / "whole")
    killed = stage_of(glyph_store, **changes)
    killed.dies_at = 9
    with pytest.raises(RuntimeError, match="killed"):
        run_of(killed, tmp_path / "run")
    run_of(stage_of(glyph_store, **changes), tmp_path / "run")
    assert rows_of(tmp_path / "run") == rows_of(tmp_path / "whole")
    assert [row["step"] for row in rows_of(tmp_path / "run")] == [5, 10, 12]


# Signals


@contextlib.contextmanager
def handling(signum: int, action: signal.Handlers):
    """Handle a signal in one way whatever the test's own process does, as under nohup."""
    old = signal.signal(signum, action)
    try:
        yield
    finally:
        signal.signal(signum, old)


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1"])
def test_signals_of_terminals_and_of_slurm_save(glyph_store, tmp_path, name):
    signum = getattr(signal, name)
    stopper = StopAfter("latent 3/", signum)
    with handling(signum, signal.SIG_DFL), pytest.raises(Interrupted) as caught:
        run_stage(stage_of(glyph_store, log_every=1), tmp_path, stopper)
    assert caught.value.signum == signum
    assert names_of(tmp_path) == ["latent-000000003"]


def test_training_under_nohup_ignores_sighup(glyph_store, tmp_path):
    stopper = StopAfter("latent 3/", signal.SIGHUP)
    with handling(signal.SIGHUP, signal.SIG_IGN):
        run_stage(stage_of(glyph_store, log_every=1), tmp_path, stopper)
    assert checkpoint.steps_done(tmp_path / "checkpoints", "latent") == 12


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    atomic_write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_device_is_written_to_and_not_replaced():
    atomic_write(Path(os.devnull), "text")
    assert Path(os.devnull).is_char_device()
