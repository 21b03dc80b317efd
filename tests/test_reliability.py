"""Tests recovery from values that are not finite and from damaged checkpoints."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from rich.console import Console

from lord_fast.cli import main
from lord_fast.config import replace
from lord_fast.data.store import ImageStore
from lord_fast.errors import Interrupted
from lord_fast.lord import Lord
from lord_fast.machine import set_up
from lord_fast.run import checkpoint
from lord_fast.run.snapshot import save
from lord_fast.run.stats import read_stats
from lord_fast.run.tensors import State
from lord_fast.train.latent import LatentStage
from lord_fast.train.loop import run_stage
from tests.plain_table import assert_same
from tests.test_checkpoint import some_state
from tests.test_cli import fails
from tests.test_train import SMALL, files_of, flags, train

SHORT_FLAGS = ("--steps", "12", "--save-every", "4", "--log-every", "4")
SHORT = replace(SMALL, steps=12, save_every=4, log_every=4)


class Faulty(LatentStage):
    """A stage in which given steps produce values that are not finite."""

    faults: dict[int, str]
    dies_at: int | None = None
    on_step = staticmethod(lambda done: None)

    def step(self, step):
        if step + 1 == self.dies_at:
            raise RuntimeError("killed")
        scalars = super().step(step)
        fault = self.faults.get(step + 1)
        if fault == "loss":
            scalars["loss"] = torch.tensor(float("inf"))
        elif fault == "network":
            next(self.decoder.parameters()).data.view(-1)[0] = float("nan")
        elif fault == "row":
            row = self.sampler.image_ids(step)[-1]
            self.contents[0].state.weight[row, 0] = float("nan")
        self.on_step(step + 1)
        return scalars


def stage_of(store: Path, faults: dict[int, str] | None = None, **changes) -> Faulty:
    stage = Faulty(replace(SHORT, **changes), ImageStore(store), set_up("cpu", "float32", 2))
    stage.faults = faults or {}
    return stage


def run_of(stage: Faulty, run: Path) -> str:
    """Run a stage in a folder and return the console's output."""
    run.mkdir(exist_ok=True)
    console = Console(record=True, file=open(os.devnull, "w"), width=400)  # noqa: SIM115
    run_stage(stage, run, console)
    return console.export_text()


def tables_of(stage: Faulty) -> State:
    """Return all rows of a stage's tables."""
    return {
        name: shards[0].read_rows(torch.arange(shards[0].num_rows))
        for name, shards in stage.tables().items()
    }


def names_of(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def rows_of(run: Path) -> list[dict]:
    rows = read_stats(run / "stats.jsonl")
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


# A step that is not finite


@pytest.mark.parametrize(
    ("fault", "what"),
    [("loss", "the loss"), ("network", "decoder/"), ("row", "content/weight")],
)
def test_a_step_that_is_not_finite_is_left_out(glyph_store, tmp_path, fault, what):
    said = run_of(stage_of(glyph_store, {6: fault}), tmp_path / "run")
    assert "going back to" in said
    assert what in said
    assert "leaving out step 6 (1 of 3)" in said
    without = stage_of(glyph_store)
    for step in range(12):
        if step != 5:
            without.step(step)
    found = checkpoint.load(tmp_path / "run" / "checkpoints" / "latent-000000012")
    assert found.state.pop("log")["skipped"].tolist() == [6]
    assert_same(found.state, without.state())
    loaded = stage_of(glyph_store)
    loaded.load_tables(found.tables)
    assert_same(tables_of(loaded), tables_of(without))
    assert [row.get("skipped") for row in rows_of(tmp_path / "run")] == [None, [6], None]


def test_three_steps_are_left_out_and_then_training_stops(glyph_store, tmp_path):
    run, faults = tmp_path / "run", {5: "row", 6: "loss", 7: "network", 10: "row"}
    for _ in range(2):  # the same command again stops at the same place
        with pytest.raises(ValueError, match=r"content/weight is not finite after step 10") as e:
            run_of(stage_of(glyph_store, faults), run)
        assert str(run / "checkpoints" / "latent-000000008") in str(e.value)
        assert "left out: 5, 6, 7" in str(e.value)
        assert names_of(run) == ["latent-000000004", "latent-000000008"]
        for name in names_of(run):
            checkpoint.load(run / "checkpoints" / name)
    assert [row["step"] for row in rows_of(run)] == [4, 8]


def test_saving_more_often_than_checking_the_loss_keeps_good_checkpoints(glyph_store, tmp_path):
    faults = dict.fromkeys(range(6, 12), "loss")
    stage = stage_of(glyph_store, faults, save_every=1, log_every=12)
    with pytest.raises(ValueError, match="the loss is not finite after step 9"):
        run_of(stage, tmp_path / "run")
    checkpoint.load(tmp_path / "run" / "checkpoints" / "latent-000000008")


def test_a_fault_that_does_not_repeat_costs_no_step(glyph_store, tmp_path):
    stage = stage_of(glyph_store, {6: "row"})
    stage.on_step = lambda done: stage.faults.clear() if done == 6 else None
    run_of(stage, tmp_path / "run")
    run_of(stage_of(glyph_store), tmp_path / "whole")
    last = "checkpoints/latent-000000012"
    assert files_of(tmp_path / "run" / last) == files_of(tmp_path / "whole" / last)


def test_training_stops_if_a_value_is_not_finite_before_the_first_checkpoint(glyph_store, tmp_path):
    with pytest.raises(ValueError, match="after step 2; there is no checkpoint to go back to"):
        run_of(stage_of(glyph_store, {2: "loss"}), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_signal_after_a_step_that_is_not_finite_saves_nothing_and_says_so(glyph_store, tmp_path):
    stage, run = stage_of(glyph_store, {6: "row"}), tmp_path / "run"
    stage.on_step = lambda done: signal.raise_signal(signal.SIGTERM) if done == 6 else None
    with pytest.raises(Interrupted) as caught:
        run_of(stage, run)
    assert "all saved" not in str(caught.value)
    assert f"saved up to {run / 'checkpoints' / 'latent-000000004'}" in str(caught.value)
    assert names_of(run) == ["latent-000000004"]


def test_the_host_reads_losses_only_to_log_or_save(glyph_store, tmp_path, monkeypatch):
    looks = []
    stack = torch.stack

    def counted(tensors, *rest):
        if tensors[0].ndim == 0:
            looks.append(len(tensors))
        return stack(tensors, *rest)

    stage = stage_of(glyph_store)
    monkeypatch.setattr("lord_fast.train.log.torch.stack", counted)
    run_of(stage, tmp_path / "run")
    assert looks == [4, 4, 4]


# Damaged checkpoints, and going back on purpose


def damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_the_previous_checkpoint_replaces_a_damaged_one(glyph_store, short_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(short_run, run)
    newest, older = (run / "checkpoints" / f"latent-0000000{step}" for step in ("12", "08"))
    damage(newest / "content-0000-000000012.safetensors")
    capsys.readouterr()
    assert Lord.load(run, device="cpu").step == 8
    said = capsys.readouterr().err.strip()
    assert f"{newest / 'content-0000-000000012.safetensors'}: damaged" in said
    assert f"{older} is undamaged and is used instead" in said
    assert len(said.splitlines()) == 1

    assert train(glyph_store, run, *SHORT_FLAGS) == 0
    assert f"{older} is undamaged" in capsys.readouterr().err
    assert files_of(newest) == files_of(short_run / "checkpoints" / newest.name)
    assert rows_of(run) == rows_of(short_run)


def test_an_error_names_the_latest_checkpoint_if_all_are_damaged(short_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(short_run, run)
    for path in (run / "checkpoints").iterdir():
        damage(path / "decoder.safetensors")
    with pytest.raises(ValueError, match=r"latent-000000012.*damaged.*no other checkpoint"):
        Lord.load(run, device="cpu")


def test_a_checkpoint_that_is_removed_during_reading_is_not_reported_as_damaged(
    tmp_path, monkeypatch
):
    save(tmp_path, "latent", 1, some_state())
    save(tmp_path, "latent", 2, some_state())
    load_file = checkpoint.load_file

    def pruned(file):
        if file.parent.name == "latent-000000002":
            for step in (3, 4):
                save(tmp_path, "latent", step, some_state(step))
        return load_file(file)

    monkeypatch.setattr(checkpoint, "load_file", pruned)
    said: list[str] = []
    found = checkpoint.load_latest(tmp_path, "latent", said.append)
    assert (found.step, said) == (4, [])


def test_from_step_goes_back(glyph_store, short_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(short_run, run)
    command = ("train", glyph_store, "--run", run, *flags(), *SHORT_FLAGS)
    error = fails(capsys, *command, "--from-step", "5")
    assert "no checkpoint of the latent stage at step 5; there are: 8, 12" in error
    assert main([str(word) for word in (*command, "--from-step", "8")]) == 0
    assert f"resuming from {run / 'checkpoints' / 'latent-000000008'}" in capsys.readouterr().err
    last = "checkpoints/latent-000000012"
    assert files_of(run / last) == files_of(short_run / last)
    assert rows_of(run) == rows_of(short_run)


def test_saving_an_earlier_step_removes_later_checkpoints(tmp_path):
    for step in (500, 1000):
        save(tmp_path, "latent", step, some_state())
    save(tmp_path, "latent", 600, some_state())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latent-000000500", "latent-000000600"]


def test_keep_limits_the_number_of_checkpoints(glyph_store, tmp_path):
    run_of(stage_of(glyph_store, keep=3), tmp_path / "three")
    assert len(names_of(tmp_path / "three")) == 3
    run_of(stage_of(glyph_store, keep=1), tmp_path / "one")
    assert names_of(tmp_path / "one") == ["latent-000000012"]


def test_every_flipped_bit_of_state_json_is_noticed_or_harmless(tmp_path):
    saved = save(tmp_path, "latent", 12, some_state())
    file = saved / "state.json"
    whole, expected = file.read_bytes(), checkpoint.load(saved).step
    noticed = 0
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        try:
            _, step, state, _ = checkpoint.load(saved)
        except ValueError:
            noticed += 1
        else:
            assert step == expected
            assert set(state) == set(some_state())
    assert noticed > 7 * len(whole)


def test_a_checkpoint_of_another_step_or_stage_is_refused(tmp_path):
    saved = save(tmp_path, "latent", 12, some_state())
    for name in ("latent-000000013", "encoders-000000012"):
        moved = saved.rename(tmp_path / name)
        with pytest.raises(ValueError, match="renamed"):
            checkpoint.load(moved)
        moved.rename(saved)
    content = json.loads((saved / "state.json").read_text()) | {"step": 11}
    (saved / "state.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="checksum has changed"):
        checkpoint.load(saved)
