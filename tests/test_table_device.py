"""Tests training with the content table on disk, and the choice of its location."""

import errno
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple

import pytest
import torch

from lord_fast.cli import main
from lord_fast.config import replace
from lord_fast.kernels.native import row_file
from lord_fast.model import table_place
from lord_fast.model.latent import LatentTable
from lord_fast.model.table_place import choose_place
from lord_fast.run import checkpoint
from tests.test_train import ROOT, SMALL, files_of, flags, train

CUDA, CPU, MPS = torch.device("cuda"), torch.device("cpu"), torch.device("mps")
SIZE = 1000 * SMALL.model.content_dim * 12
LAST = "checkpoints/latent-000000024"


@pytest.fixture
def free(monkeypatch):
    """Free bytes by type of device and on the disk, which tests may change."""
    free = {"cuda": 0, "cpu": 0, "mps": 0, "disk": SIZE}
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(table_place, "free_memory", lambda device: free[device.type])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, free["disk"]))
    return free


def choose(where: str, device: torch.device, run=None):
    return choose_place(replace(SMALL, table_device=where), 1000, device, run)


@pytest.mark.parametrize(("kernels", "ranks"), [("native", 1), ("reference", 1), ("native", 4)])
def test_a_run_with_its_table_on_disk_writes_the_same_bytes(
    glyph_store, tmp_path, capsys, kernels, ranks
):
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    same = ("--threads", "1", "--kernels", kernels, "--virtual-ranks", str(ranks))
    same = (*same, "--grid-every", "10", "--content-discrepancy", "1")
    assert train(glyph_store, memory, *same) == 0
    assert "tables:" not in capsys.readouterr().err
    assert train(glyph_store, disk, *same, "--table-device", "disk") == 0
    header = f"tables:  content codes in a scratch file of 0.00 GB in {disk} (--table-device disk)"
    assert header in capsys.readouterr().err
    assert files_of(memory / LAST) == files_of(disk / LAST)
    assert files_of(memory / "grids") == files_of(disk / "grids")
    assert sorted(p.name for p in memory.iterdir()) == sorted(p.name for p in disk.iterdir())


def test_a_killed_run_on_disk_resumes_to_the_bits_of_one_in_memory(glyph_store, tmp_path):
    run, whole = tmp_path / "run", tmp_path / "whole"
    more = ("--steps", "300", "--save-every", "20", "--threads", "1")
    disk = (*more, "--table-device", "disk", "--table-folder", str(tmp_path / "fast"))
    command = [sys.executable, "-m", "lord_fast", "train", glyph_store, "--run", run]
    process = subprocess.Popen([*command, *flags(), *disk], cwd=ROOT, stderr=subprocess.DEVNULL)
    while checkpoint.steps_done(run / "checkpoints", "latent") < 20:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert list((tmp_path / "fast").iterdir()) == []
    assert checkpoint.steps_done(run / "checkpoints", "latent") < 300
    assert train(glyph_store, run, *disk) == 0
    assert train(glyph_store, whole, *more) == 0
    last = "checkpoints/latent-000000300"
    assert files_of(run / last) == files_of(whole / last)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_failed_write_ends_the_run_with_the_last_good_checkpoint(
    glyph_store, tmp_path, capsys, monkeypatch, number
):
    """The write behind fails in the middle of the run."""
    run, write, calls = tmp_path / "run", row_file.write_rows, []

    def fail_later(*arguments):
        calls.append(1)
        if len(calls) > 12:
            raise OSError(number, os.strerror(number))
        write(*arguments)

    monkeypatch.setattr(row_file, "write_rows", fail_later)
    assert train(glyph_store, run, "--table-device", "disk", "--threads", "1") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{run / 'content table (scratch file)'}: {os.strerror(number)}" in error
    assert checkpoint.steps_done(run / "checkpoints", "latent") == 8
    monkeypatch.undo()
    assert train(glyph_store, run, "--threads", "1") == 0
    assert train(glyph_store, tmp_path / "whole", "--threads", "1") == 0
    assert files_of(run / LAST) == files_of(tmp_path / "whole" / LAST)


def test_auto_selects_the_first_place_with_enough_memory(free):
    for gpu, host, wanted in (
        (2 * SIZE, 0, "device"), (2 * SIZE - 2, 2 * SIZE, "pinned"), (0, 2 * SIZE - 2, "disk")
    ):  # fmt: skip
        free.update(cuda=gpu, cpu=host)
        assert choose("auto", CUDA).where == wanted
    assert choose("auto", CPU).where == "disk"
    free.update(cpu=2 * SIZE)
    assert choose("auto", CPU).where == "device"
    assert choose("auto", MPS).where == "device"


def test_the_header_says_why_a_table_is_on_disk(free, tmp_path):
    place = choose("auto", CPU, tmp_path)
    assert place.folder == tmp_path
    assert "more than half of the 0.00 GB that are free on the cpu device" in place.describe()
    assert choose("disk", CUDA).describe().endswith("(--table-device disk)")
    free.update(cpu=SIZE, cuda=SIZE)
    assert "host memory (--table-device pinned)" in choose("pinned", CUDA).describe()
    assert choose("cuda", CUDA).describe() == ""
    assert choose("cuda", CUDA).table is LatentTable


def test_places_that_are_too_small_or_missing_are_refused(free, tmp_path, monkeypatch):
    for where in ("cuda", "pinned"):
        with pytest.raises(ValueError, match=f"--table-device {where}: the content table takes"):
            choose(where, CUDA)
        with pytest.raises(ValueError, match=f"--table-device {where}: needs --device cuda"):
            choose(where, CPU)
    with pytest.raises(ValueError, match="--table-device disk: runs on Linux and macOS"):
        choose("disk", MPS)
    free.update(disk=SIZE - 1)
    with pytest.raises(ValueError, match=r"--table-device disk: .* with --table-folder"):
        choose("disk", CPU, tmp_path / "new" / "run")
    free.update(disk=SIZE)
    monkeypatch.delattr(os, "preadv")
    with pytest.raises(ValueError, match="--table-device disk: runs on Linux and macOS"):
        choose("disk", CPU)


def test_a_table_device_without_a_gpu_is_one_line(glyph_store, tmp_path, capsys):
    run = tmp_path / "run"
    words = ["train", str(glyph_store), "--run", str(run), *flags(), "--table-device", "pinned"]
    assert main(words) == 2
    assert "--table-device pinned: needs --device cuda" in capsys.readouterr().err
    assert not run.exists()
