"""Tests that figures, grids and options reach the loggers, and that callbacks are called."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lord_fast.cli import main
from lord_fast.run.config import load_config
from lord_fast.train import loggers
from lord_fast.train.callbacks import Callbacks
from lord_fast.train.start import train_latent
from tests.test_cli import fails
from tests.test_train import ROOT, flags, train


class Recorded:
    """A logger that keeps what it is given."""

    def __init__(self, run: Path, stage: str, config: dict, key: str):
        self.stage, self.config, self.key = stage, config, key
        self.figures: dict[int, dict] = {}
        self.pictures: dict[int, Path] = {}
        self.closed = 0

    def scalars(self, step: int, values: dict) -> None:
        self.figures[step] = values

    def picture(self, step: int, file: Path) -> None:
        assert file.is_file()
        self.pictures[step] = file

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def recorded(monkeypatch) -> list[Recorded]:
    """Every logger that is opened. They take the place of W&B and MLflow."""
    found: list[Recorded] = []

    def make(*arguments) -> Recorded:
        found.append(Recorded(*arguments))
        return found[-1]

    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(loggers.KINDS, name, make)
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: object())
    return found


def test_figures_grids_and_options_reach_every_logger(glyph_store, tmp_path, recorded):
    run = tmp_path / "run"
    flags = ("--logger", "wandb", "--logger", "mlflow", "--logger", "wandb")
    assert train(glyph_store, run, *flags, "--grid-every", "16") == 0
    assert len(recorded) == 2
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    for logger in recorded:
        assert logger.stage == "latent"
        assert logger.config["content_dim"] == 4
        assert list(logger.figures) == [line["step"] for line in lines]
        for line in lines:
            assert logger.figures[line["step"]]["loss"] == line["loss"]
        assert set(logger.figures[24]) == {
            "loss", "reconstruction", "content_penalty", "lr", "images_per_second",
        }  # fmt: skip
        assert list(logger.pictures) == [16, 24]
        assert logger.closed == 1
    assert load_config(run / "config.yaml")[0].logging.logger == ("wandb", "mlflow", "wandb")


def test_a_resumed_run_keeps_its_id_and_may_change_its_loggers(glyph_store, tmp_path, recorded):
    run = tmp_path / "run"
    assert train(glyph_store, run, "--logger", "wandb") == 0
    assert train(glyph_store, run, "--logger", "mlflow", "--steps", "30") == 0
    assert recorded[0].key == recorded[1].key
    assert list(recorded[1].figures)[-1] == 30


def test_the_figures_of_evaluate_reach_the_loggers_of_the_run(glyph_store, tmp_path, recorded):
    run = tmp_path / "run"
    assert train(glyph_store, run, "--logger", "wandb") == 0
    assert main(["evaluate", str(run)]) == 0
    found = json.loads((run / "metrics.json").read_text())
    assert (recorded[1].stage, recorded[1].key) == ("latent", recorded[0].key)
    (step,) = recorded[1].figures
    assert step == found["step"]
    sent = recorded[1].figures[step]
    assert sent["metrics/reconstruction/psnr"] == found["reconstruction"]["psnr"]
    probe = found["leakage"]["class_from_content"]
    assert sent["metrics/leakage/class_from_content/mlp_accuracy"] == probe["mlp_accuracy"]
    assert all(type(value) in (int, float) for value in sent.values())
    assert recorded[1].closed == 1


def test_a_run_is_evaluated_where_the_package_of_its_logger_is_missing(
    glyph_store, tmp_path, recorded, monkeypatch, capsys
):
    run = tmp_path / "run"
    assert train(glyph_store, run, "--logger", "wandb") == 0
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    assert main(["evaluate", str(run)]) == 0
    error = capsys.readouterr().err
    assert "warning: the metrics were not sent to the loggers (--logger wandb: the package" in error


def test_loggers_are_closed_if_training_fails(glyph_store, tmp_path, recorded, monkeypatch):
    monkeypatch.setattr(Recorded, "picture", lambda *_: 1 / 0)
    assert train(glyph_store, tmp_path / "run", "--logger", "wandb") == 1
    assert recorded[0].closed == 1


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio", "tensorboard"])
def test_a_missing_package_is_refused_before_the_run_is_created(
    glyph_store, tmp_path, capsys, monkeypatch, name
):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    run = tmp_path / "run"
    command = ("train", glyph_store, "--run", run, *flags())
    error = fails(capsys, *command, "--logger", name)
    assert f"--logger {name}: the package is missing; pip install 'lord-fast[{name}]'" in error
    if name == "tensorboard":
        assert "--tensorboard: the package is missing" in fails(capsys, *command, "--tensorboard")
    assert not run.exists()


def test_an_unknown_logger_is_refused(glyph_store, tmp_path):
    with pytest.raises(SystemExit):
        train(glyph_store, tmp_path / "run", "--logger", "paper")


CONFIG = {"lr": 0.5, "steps": 4, "device": "cpu"}


def opened(kind, run: Path, stage: str = "latent") -> loggers.Logger:
    run.mkdir(exist_ok=True)
    return kind(run, stage, CONFIG, "abc")


def fill(logger: loggers.Logger, run: Path, steps: tuple[int, ...] = (10, 20)) -> None:
    """Log a figure for each step and a grid, and close the logger."""
    grid = run / "grid.png"
    Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(grid)
    for step in steps:
        logger.scalars(step, {"loss": 1 / step})
    logger.picture(steps[-1], grid)
    logger.close()


def test_tensorboard_reads_what_was_logged(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fill(opened(loggers.KINDS["tensorboard"], tmp_path), tmp_path)
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in found.Scalars("latent/loss")] == [
        (10, pytest.approx(0.1)), (20, pytest.approx(0.05)),
    ]  # fmt: skip
    assert found.Images("latent/grid")[0].step == 20
    assert "latent/options/text_summary" in found.Tags()["tensors"]


def filled_elsewhere(kind: str, run: Path, **environment: str) -> None:
    """Call `fill` in a process of its own, because some tools write until the process ends."""
    code = (
        f"from pathlib import Path; from tests.test_loggers import fill, loggers, opened\n"
        f"run = Path({str(run)!r})\n"
        f"fill(opened(loggers.KINDS[{kind!r}], run), run)"
    )
    env = {**os.environ, **environment}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, check=True)


def test_wandb_writes_offline(tmp_path):
    pytest.importorskip("wandb")
    filled_elsewhere("wandb", tmp_path / "run", WANDB_MODE="offline")
    (file,) = tmp_path.glob("run/wandb/offline-run-*/*.wandb")
    assert file.name == "run-abc-latent.wandb"
    written = file.read_bytes()  # Records are neither compressed nor encrypted.
    for expected in (b"loss", b"0.05", b"grid", *(name.encode() for name in CONFIG)):
        assert expected in written
    assert list(file.parent.glob("files/media/images/grid*.png"))


def test_mlflow_reads_what_was_logged_also_by_a_resumed_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    for steps in ((10,), (20,)):
        fill(opened(loggers.KINDS["mlflow"], tmp_path / "run"), tmp_path / "run", steps)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name(loggers.PROJECT).experiment_id])
    assert run.data.params == {"lr": "0.5", "steps": "4", "device": "cpu"}
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(10, 0.1), (20, 0.05)]
    assert (
        len([f for f in client.list_artifacts(run.info.run_id, "images") if "png" in f.path]) == 2
    )
    assert run.info.status == "FINISHED"


def test_trackio_keeps_what_was_logged(tmp_path):
    pytest.importorskip("trackio")
    filled_elsewhere("trackio", tmp_path / "run", TRACKIO_DIR=str(tmp_path / "trackio"))
    (file,) = tmp_path.rglob("lord-fast.db")
    with sqlite3.connect(file) as database:
        rows = database.execute("select step, metrics from metrics order by step").fetchall()
    figures = [(step, json.loads(text).get("loss")) for step, text in rows]
    assert (10, 0.1) in figures
    assert (20, 0.05) in figures
    assert list((tmp_path / "trackio" / "media").rglob("*.png"))


def test_callbacks_are_called_after_every_step_and_save(glyph_store, tmp_path, short_run):
    config, _ = load_config(short_run / "config.yaml")
    steps: list[tuple[int, float]] = []
    saves: list[tuple[int, Path]] = []

    def on_save(step: int, folder: Path) -> None:
        assert (folder / "state.json").is_file()
        saves.append((step, folder))

    def on_step(step: int, scalars: dict) -> None:
        steps.append((step, float(scalars["loss"])))

    callbacks = Callbacks(on_step, on_save)
    done = train_latent(glyph_store, tmp_path / "run", config, callbacks=callbacks)
    assert [step for step, _ in steps] == list(range(1, done + 1))
    assert all(loss > 0 for _, loss in steps)
    folder = tmp_path / "run" / "checkpoints"
    assert saves == [(step, folder / f"latent-{step:09d}") for step in (4, 8, 12)]


def test_an_exception_in_a_callback_ends_the_training(glyph_store, tmp_path, short_run):
    config, _ = load_config(short_run / "config.yaml")

    def stop(step: int, scalars: dict) -> None:
        if step == 3:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        train_latent(glyph_store, tmp_path / "run", config, callbacks=Callbacks(on_step=stop))
