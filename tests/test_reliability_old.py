"""Tests that runs of lord-fast 0.1 load and resume, or that one line says what to do."""

import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import save_file

from lord_fast.atomic import file_sha256
from lord_fast.cli import main
from lord_fast.lord import Lord
from lord_fast.model.build import build_tables
from lord_fast.run import checkpoint
from lord_fast.run.config import load_config
from tests.plain_table import assert_same, state_of
from tests.test_cli import fails
from tests.test_encoders import ENCODER_FLAGS
from tests.test_reliability import SHORT_FLAGS
from tests.test_train import train

ORDER = (
    "device precision kernels decoder store_device compile cuda_graph threads log_every save_every "
    "grid_every tensorboard preset content_dim class_dim adain_dim leaky_slope adain_init "
    "content_std content_decay loss pixel_weight perceptual_weight perceptual_taps "
    "perceptual_scale perceptual_input perceptual_weights cache_target_features optimizer lr "
    "latent_lr class_lr min_lr beta1 beta2 eps batch_size epochs steps seed data"
)
"""The keys of config.yaml as lord-fast 0.1 wrote them."""


def as_of_0_1(run) -> None:
    """Turn a run into one that lord-fast 0.1 would have written."""
    file = run / "config.yaml"
    values = yaml.safe_load(file.read_text())
    del values["data"]["perceptual_sha256"]
    values["precision"] = "auto"
    file.write_text(yaml.safe_dump({key: values[key] for key in ORDER.split()}, sort_keys=False))
    for path in (run / "checkpoints").iterdir():
        content = json.loads((path / "state.json").read_text())
        join_tables(path, content)
        del content["checksum"], content["sha256"]["log.safetensors"]
        (path / "log.safetensors").unlink()
        content["stage"] = content["stage"].replace("encoders", "amortized")
        (path / "state.json").write_text(json.dumps(content, indent=1) + "\n")


def join_tables(path, content) -> None:
    """Replace the segments of each table by one file with all rows, as before segments."""
    config, data = load_config(path.parents[1] / "config.yaml")
    saved = checkpoint.load(path).tables
    sizes = data["num_images"], data["num_classes"], config.total_steps(data["num_images"])
    contents, class_ = build_tables(config, *sizes, torch.device("cpu"))
    for name, table in (("content", contents[0]), ("class", class_)):
        saved[name].load_into({0: table})
        [segments] = content["tables"][name]["segments"]
        for file in (file for segment in segments for file in segment["files"]):
            (path / file).unlink()
            del content["sha256"][file]
        file = path / f"{name}.safetensors"
        save_file(table.read_rows(torch.arange(table.num_rows)), file)
        content["sha256"][file.name] = file_sha256(file)
    del content["tables"]


OLD_FLAGS = (*SHORT_FLAGS, "--content-init", "uniform", "--content-discrepancy", "0")
"""Version 0.1 had no such option, so a run of it is repeated without."""


@pytest.fixture(scope="module")
def old_form(glyph_store, tmp_path_factory):
    """A run as version 0.1 trained it, in the files of today."""
    run = tmp_path_factory.mktemp("form") / "run"
    assert train(glyph_store, run, *OLD_FLAGS) == 0
    return run


@pytest.fixture
def old_run(old_form, tmp_path):
    run = tmp_path / "old"
    shutil.copytree(old_form, run)
    as_of_0_1(run)
    return run


def test_a_run_of_0_1_loads_and_resumes_to_the_same_tensors(glyph_store, old_form, old_run, capsys):
    assert Lord.load(old_run, device="cpu").step == 12
    shutil.rmtree(old_run / "checkpoints" / "latent-000000012")
    assert train(glyph_store, old_run, *SHORT_FLAGS) == 2
    error = capsys.readouterr().err
    assert "repeat the flags that it was trained with" in error
    assert "--content-init uniform -> statistics; --content-discrepancy 0.0 -> 0.5" in error
    assert train(glyph_store, old_run, *OLD_FLAGS) == 0
    last = "checkpoints/latent-000000012"
    assert_same(state_of(old_run / last), state_of(old_form / last))
    # The old file with all rows is linked like a segment.
    names = {file.name for file in (old_run / last).iterdir()}
    assert names >= {"content.safetensors", "content-0000-000000012.safetensors"}
    assert load_config(old_run / "config.yaml")[0].logging.keep == 2


def test_encoders_of_0_1_are_refused_by_one_line_and_load_once_renamed(old_run, capsys, tmp_path):
    assert main(["train-encoders", str(old_run), *ENCODER_FLAGS, "--steps", "4"]) == 0
    folder = old_run / "checkpoints"
    new, old = folder / "encoders-000000004", folder / "amortized-000000004"
    content = json.loads((new / "state.json").read_text())
    del content["checksum"]
    (new / "state.json").write_text(json.dumps(content | {"stage": "amortized"}))
    new.rename(old)
    error = fails(capsys, "sample", old_run, "--out", tmp_path / "grid.png")
    assert f"rename the amortized-* folders in {folder} to encoders-*" in error
    old.rename(new)
    assert Lord.load(old_run, device="cpu").steps == {"latent": 12, "encoders": 4}
    assert checkpoint.load(new).step == 4
