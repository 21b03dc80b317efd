"""The order of the system calls of a write: write, fsync, rename, fsync of the folder."""

import os
import stat
from pathlib import Path

import pytest

from lord_fast.atomic import atomic_folder, atomic_write


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, str]]:
    """What is synced (file or folder) and what is renamed, in order."""
    found: list[tuple[str, str]] = []
    real = {name: getattr(os, name) for name in ("fsync", "rename", "replace")}

    def fsync(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        found.append(("fsync", "folder" if is_folder else os.fstat(descriptor).st_size))
        real["fsync"](descriptor)

    def renaming(name):
        def call(source, target, **options):
            found.append(("rename", Path(target).name))
            real[name](source, target, **options)

        return call

    monkeypatch.setattr(os, "fsync", fsync)
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, renaming(name))
    return found


def test_a_file_is_synced_whole_before_it_has_its_name(calls, tmp_path):
    (tmp_path / "metrics.json").write_text("old")
    atomic_write(tmp_path / "metrics.json", "12345")
    assert calls == [("fsync", 5), ("rename", "metrics.json"), ("fsync", "folder")]


def test_a_folder_is_synced_with_all_its_files_before_it_has_its_name(calls, tmp_path):
    with atomic_folder(tmp_path / "out") as partial:
        (partial / "deep").mkdir()
        (partial / "a").write_text("1")
        (partial / "deep" / "b").write_text("22")
    renamed = calls.index(("rename", "out"))
    synced = [what for call, what in calls[:renamed] if call == "fsync"]
    # The marker has no bytes. The lock file is synced as well.
    assert {0, 1, 2} <= set(synced)
    assert synced.count("folder") == 2
    assert calls[renamed + 1 :] == [("fsync", "folder")]
