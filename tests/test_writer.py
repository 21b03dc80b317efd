"""Tests that training goes on while a checkpoint is written, and what happens when that fails."""

import errno
import os
import threading
from pathlib import Path

import pytest

from lord_fast.run import checkpoint, snapshot
from lord_fast.train.writer import Writer
from tests.plain_table import assert_same, state_of
from tests.test_reliability import SHORT_FLAGS, names_of, run_of, stage_of
from tests.test_train import files_of, train

LAST = "checkpoints/latent-000000012"
LONG = 60.0
"""Seconds after which a wait counts as failed."""


@pytest.fixture(scope="module")
def whole_run(glyph_store, tmp_path_factory) -> Path:
    """A read-only run of 12 steps with checkpoints at 4, 8 and 12."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    run_of(stage_of(glyph_store, keep=3), run)
    return run


@pytest.fixture
def held(monkeypatch) -> threading.Event:
    """Hold every write of a checkpoint back until this event is set."""
    released, write = threading.Event(), snapshot.write

    def waiting(*arguments):
        assert released.wait(LONG)
        return write(*arguments)

    monkeypatch.setattr(snapshot, "write", waiting)
    return released


def failing(code: int, at: str):
    """Return a replacement of `write_tensors` that fails in the checkpoints of a step."""
    write_tensors = snapshot.write_tensors

    def write(file, tensors):
        if at in file.parent.name:
            file.write_bytes(b"half")
            raise OSError(code, os.strerror(code), str(file))
        return write_tensors(file, tensors)

    return write


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "_run" in thread.name]


def test_training_goes_on_while_a_checkpoint_is_written(glyph_store, whole_run, tmp_path, held):
    """The checkpoint of step 4 is written after step 7 and holds the state of step 4."""
    stage, seen = stage_of(glyph_store, keep=3), []
    stage.on_step = lambda done: (seen.append(done), held.set() if done == 7 else None)
    run_of(stage, tmp_path / "run")
    assert seen == list(range(1, 13))
    assert names_of(tmp_path / "run") == [f"latent-{step:09d}" for step in (4, 8, 12)]
    assert files_of(tmp_path / "run" / LAST) == files_of(whole_run / LAST)
    older = "checkpoints/latent-000000008"
    assert files_of(tmp_path / "run" / older) == files_of(whole_run / older)
    assert not writers()


def test_an_error_of_the_writer_ends_training_at_the_next_step(
    glyph_store, whole_run, tmp_path, monkeypatch
):
    stage, seen = stage_of(glyph_store), []

    def wait_for_the_writer(done):
        seen.append(done)
        for thread in writers():
            thread.join(LONG)

    stage.on_step = wait_for_the_writer
    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "write_tensors", failing(errno.EIO, "000000008"))
        with pytest.raises(OSError, match=r"latent-000000008\.partial.*\.safetensors") as caught:
            run_of(stage, tmp_path / "run")
    assert caught.value.errno == errno.EIO
    assert seen[-1] == 9
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [
        "latent-000000004"
    ]
    run_of(stage_of(glyph_store), tmp_path / "run")
    assert files_of(tmp_path / "run" / LAST) == files_of(whole_run / LAST)


@pytest.mark.parametrize("step", ["000000004", "000000012"])
def test_a_full_disk_ends_training_with_one_line(
    glyph_store, short_run, tmp_path, capsys, monkeypatch, step
):
    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "write_tensors", failing(errno.ENOSPC, step))
        assert train(glyph_store, tmp_path / "run", *SHORT_FLAGS) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("lord-fast train: ")
    assert "No space left on device" in error
    assert f".latent-{step}.partial" in error
    assert list((tmp_path / "run" / "checkpoints").glob(".*")) == []
    assert train(glyph_store, tmp_path / "run", *SHORT_FLAGS) == 0
    assert files_of(tmp_path / "run" / LAST) == files_of(short_run / LAST)


def test_going_back_waits_for_the_checkpoint_that_is_being_written(glyph_store, tmp_path, held):
    stage = stage_of(glyph_store, {5: "loss"}, log_every=5)

    def release_soon(done):
        if done == 5 and stage.faults:
            stage.faults.clear()
            threading.Timer(0.3, held.set).start()

    stage.on_step = release_soon
    said = run_of(stage, tmp_path / "run")
    assert f"going back to {tmp_path / 'run' / 'checkpoints' / 'latent-000000004'}" in said
    assert checkpoint.load(tmp_path / "run" / LAST).step == 12


def test_another_error_waits_for_the_checkpoint_that_is_being_written(glyph_store, tmp_path, held):
    """The run's lock is free afterwards, so no thread may still write to the run."""
    stage = stage_of(glyph_store)
    stage.dies_at = 6
    stage.on_step = lambda done: threading.Timer(0.3, held.set).start() if done == 5 else None
    with pytest.raises(RuntimeError, match="killed"):
        run_of(stage, tmp_path / "run")
    assert names_of(tmp_path / "run") == ["latent-000000004"]
    assert not writers()


def test_a_large_change_is_written_before_training_goes_on(
    glyph_store, whole_run, tmp_path, monkeypatch
):
    for module in ("segments", "snapshot", "saved"):
        monkeypatch.setattr(f"lord_fast.run.{module}.BLOCK", 16)
    threads: list[threading.Thread] = []
    stage = stage_of(glyph_store)
    stage.on_step = lambda done: threads.extend(writers())
    run_of(stage, tmp_path / "run")
    assert threads == []
    assert_same(state_of(tmp_path / "run" / LAST), state_of(whole_run / LAST))


def test_a_value_that_is_not_finite_in_a_large_change_leaves_nothing(
    glyph_store, tmp_path, monkeypatch
):
    for module in ("segments", "snapshot", "saved"):
        monkeypatch.setattr(f"lord_fast.run.{module}.BLOCK", 16)
    with pytest.raises(ValueError, match=r"content/weight is not finite after step 4; there is no"):
        run_of(stage_of(glyph_store, {3: "row"}), tmp_path / "run")
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_without_hard_links_every_checkpoint_is_full_and_one_line_says_so(
    glyph_store, whole_run, tmp_path, monkeypatch
):
    def refused(source, target):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    said = run_of(stage_of(glyph_store), tmp_path / "run")
    assert said.count("this file system has no hard links") == 1
    for step in (8, 12):
        folder = tmp_path / "run" / "checkpoints" / f"latent-{step:09d}"
        assert [file.name for file in folder.glob("content*")] == [
            f"content-0000-{step:09d}.safetensors"
        ]
    assert_same(state_of(tmp_path / "run" / LAST), state_of(whole_run / LAST))


def test_a_checkpoint_that_vanishes_during_training_does_not_end_it(
    glyph_store, whole_run, tmp_path
):
    stage, run = stage_of(glyph_store, save_every=3), tmp_path / "run"

    def remove(done):
        if done == 5:
            for thread in writers():
                thread.join(LONG)
            for file in (run / "checkpoints" / "latent-000000003").glob("content*"):
                file.unlink()

    stage.on_step = remove
    said = run_of(stage, run)
    assert said.count("missing; the latent tables are saved in full") == 1
    assert_same(state_of(run / LAST), state_of(whole_run / LAST))


# The writer itself


def test_the_writer_raises_the_error_of_its_job_once():
    writer, failed = Writer(), ValueError("no")

    def job():
        raise failed

    writer.start(job)
    with pytest.raises(ValueError, match="no"):
        writer.wait()
    writer.wait()
    writer.start(job)
    with pytest.raises(ValueError, match="no"):
        writer.start(lambda: None)
    with pytest.raises(ValueError, match="no"), writer:
        writer.start(job)


def test_only_a_keyboard_interrupt_does_not_wait():
    released, done = threading.Event(), threading.Event()

    def job():
        released.wait(LONG)
        done.set()

    writer = Writer()
    writer.start(job)
    writer.__exit__(KeyboardInterrupt)
    assert not done.is_set()
    released.set()
    assert done.wait(LONG)

    for event in (released, done):
        event.clear()
    writer.start(job)
    threading.Timer(0.1, released.set).start()
    writer.__exit__(RuntimeError)
    assert done.is_set()


def test_leftovers_of_a_killed_writer_are_removed(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / ".latent-000000004.partial").mkdir()
    (folder / ".latent-000000004.partial" / "content-0000-000000004.safetensors").touch()
    (folder / ".latent-000000004.link.partial").touch()
    (folder / ".mine.partial").touch()
    checkpoint.remove_leftovers(folder)
    assert [path.name for path in folder.iterdir()] == [".mine.partial"]
