"""`lord-fast doctor --self-test`: says what works, and fails where something does not."""

import contextlib
import errno
import os

import pytest

from lord_fast import self_test
from lord_fast.cli import main
from lord_fast.kernels import reference


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Without the trainings, which `test_reliability_crash` has more of."""
    monkeypatch.setattr(self_test, "_kill_and_resume", _not_tried)


def _not_tried(place):
    return "not tried"


def of(folder) -> dict[str, tuple[str, bool]]:
    return {what: (result, good) for what, result, good in self_test.self_test(folder)}


def test_a_good_machine_passes_and_nothing_is_left(tmp_path, capsys):
    assert main(["doctor", "--self-test", "--folder", str(tmp_path / "new")]) == 0
    said = capsys.readouterr().out
    assert said.count("good  ") == 4
    assert "survive a kill" in said
    assert list((tmp_path / "new").iterdir()) == []


def test_a_disk_without_locks_is_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(self_test, "folder_lock", lambda folder: contextlib.nullcontext())
    assert main(["doctor", "--self-test", "--folder", str(tmp_path)]) == 2
    assert "lock of a run: a second process could take the lock" in capsys.readouterr().out


def test_a_disk_that_does_not_sync_is_found(tmp_path, monkeypatch):
    def fails(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fails)
    result, good = of(tmp_path)["writing to the disk"]
    assert not good
    assert "Input/output error" in result


def test_wrong_kernels_are_found(tmp_path, monkeypatch):
    right = reference.gather
    monkeypatch.setattr(reference, "gather", lambda *arguments: 1.001 * right(*arguments))
    result, good = of(tmp_path)["kernels"]
    assert not good
    assert "--kernels reference" in result


def test_a_run_that_resumes_to_other_bytes_is_found(tmp_path, monkeypatch):
    monkeypatch.undo()

    def writes(*arguments):
        if "--run" in arguments:
            run = tmp_path / arguments[arguments.index("--run") + 1]
            last = run / f"checkpoints/latent-{self_test.STEPS:09d}"
            last.mkdir(parents=True)
            (last / "content.safetensors").write_text(run.name)
        return ""

    monkeypatch.setattr(self_test, "_run", writes)
    monkeypatch.setattr(self_test, "_kill_after_a_save", lambda *_: 20)
    with pytest.raises(ValueError, match=r"content\.safetensors of the run that was killed"):
        self_test._kill_and_resume(tmp_path)
