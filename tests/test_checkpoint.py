"""Tests that checkpoints are atomic, are verified when read, and that the last two are kept."""

import errno
import os
from pathlib import Path

import pytest
import torch

from lord_fast.run import checkpoint, snapshot
from lord_fast.run.snapshot import save
from tests.plain_table import PlainTable


def some_state(value: float = 1.0) -> checkpoint.State:
    return {
        "decoder": {"weight": torch.full((2, 3), value), "step": torch.tensor(7)},
        "optimizer": {"0.exp_avg": torch.arange(4.0)},
    }


def test_a_saved_state_loads_unchanged(tmp_path):
    saved = save(tmp_path, "latent", 12, some_state())
    assert saved.name == "latent-000000012"
    _, step, state, tables = checkpoint.load(saved)
    assert tables == {}
    assert step == 12
    for namespace, tensors in some_state().items():
        for name, tensor in tensors.items():
            assert torch.equal(state[namespace][name], tensor)


def test_equal_states_give_equal_bytes(tmp_path):
    files = []
    for name in ("a", "b"):
        saved = save(tmp_path / name, "latent", 3, some_state())
        files.append({file.name: file.read_bytes() for file in saved.iterdir()})
    assert files[0] == files[1]


def test_the_last_two_of_each_stage_are_kept(tmp_path):
    for step in (1, 2, 30):
        save(tmp_path, "latent", step, some_state())
    save(tmp_path, "encoders", 1, some_state())
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["encoders-000000001", "latent-000000002", "latent-000000030"]
    assert checkpoint.latest(tmp_path, "latent").name == "latent-000000030"
    assert checkpoint.steps_done(tmp_path, "latent") == 30
    assert checkpoint.latest(tmp_path / "none", "latent") is None


def test_damage_is_found(tmp_path):
    saved = save(tmp_path, "latent", 1, some_state())
    file = saved / "decoder.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"decoder\.safetensors: damaged"):
        checkpoint.load(saved)
    file.unlink()
    with pytest.raises(ValueError, match="not a complete checkpoint"):
        checkpoint.load(saved)


def test_a_full_disk_leaves_the_old_checkpoint_and_no_partial_one(tmp_path, monkeypatch):
    save(tmp_path, "latent", 1, some_state())
    calls = []

    def full(file, tensors):
        calls.append(file)
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(file))

    monkeypatch.setattr(snapshot, "write_tensors", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, "latent", 2, some_state())
    assert calls
    assert [path.name for path in tmp_path.iterdir()] == ["latent-000000001"]
    assert checkpoint.load(tmp_path / "latent-000000001").step == 1


def test_leftovers_of_a_killed_process_are_ignored(tmp_path):
    save(tmp_path, "latent", 1, some_state())
    (tmp_path / ".latent-000000002.partial").mkdir()
    assert checkpoint.latest(tmp_path, "latent").name == "latent-000000001"
    save(tmp_path, "latent", 2, some_state())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latent-000000001", "latent-000000002"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")
def test_files_are_synced_before_the_rename_and_the_rename_before_returning(tmp_path, monkeypatch):
    calls = []
    fsync, rename, link = os.fsync, os.rename, os.link

    def recorded_fsync(descriptor):
        calls.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def recorded_rename(source, target):
        calls.append(f"rename {Path(target).name}")
        rename(source, target)

    def recorded_link(source, target):
        calls.append(f"link {Path(target).name}")
        link(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", recorded_rename)
    monkeypatch.setattr(os, "link", recorded_link)
    table = PlainTable(10, 2)
    table.update(torch.tensor([1]), 1)
    first = save(tmp_path, "latent", 1, some_state(), {"content": {0: table}})
    dense = ["sync decoder.safetensors", "sync optimizer.safetensors"]
    assert calls == [
        *dense, "sync content-0000-000000001.safetensors", "sync state.json",
        "sync .latent-000000001.partial", "rename latent-000000001", f"sync {tmp_path.name}",
    ]  # fmt: skip
    calls.clear()
    table.update(torch.tensor([2]), 2)
    save(tmp_path, "latent", 2, some_state(), {"content": {0: table}}, first)
    assert calls == [
        *dense, "sync content-0000-000000002.safetensors",
        "link content-0000-000000001.safetensors", "sync state.json",
        "sync .latent-000000002.partial", "rename latent-000000002", f"sync {tmp_path.name}",
    ]  # fmt: skip
