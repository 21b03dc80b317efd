"""Tests the verb seeds and its summary."""

import json
import shutil
import statistics

import pytest

from lord_fast.cli import main
from lord_fast.config import EncoderConfig
from lord_fast.presets import ENCODER_PRESETS
from lord_fast.run.config import load_config, load_encoder_config
from lord_fast.run.history import read_history
from lord_fast.run.seeds import scalars, summarize
from lord_fast.seal import unseal
from tests.test_cli import fails
from tests.test_train import flags

FILES = ("metrics.json", "metrics-held-out.json", "metrics-encoder.json",
         "metrics-encoder-held-out.json")  # fmt: skip


@pytest.fixture(scope="module")
def stores(glyph_store, tmp_path_factory):
    """A store to train on and a store of held-out images."""
    folder = tmp_path_factory.mktemp("seeds")
    parts = [folder / "train", folder / "held-out"]
    assert main(["split", str(glyph_store), *map(str, parts), "--images", "0.2"]) == 0
    return parts


@pytest.fixture
def command(stores, tmp_path, monkeypatch, quick):
    small = EncoderConfig(encoder_dim=8, batch_size=16, steps=2)
    monkeypatch.setitem(ENCODER_PRESETS, "laptop", small)
    trained, held_out = map(str, stores)
    where = ["--run", str(tmp_path / "runs"), "--held-out", held_out]
    return ["seeds", *flags(), "--steps", "3", trained, *where, "--seeds=2", "--threads", "1"]


def test_every_seed_is_trained_evaluated_and_summarized(command, tmp_path, capsys):
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "transfer.psnr" in printed.out
    runs = [tmp_path / "runs" / f"seed-{seed}" for seed in range(2)]
    for seed, run in enumerate(runs):
        assert load_config(run / "config.yaml")[0].seed == seed
        assert load_encoder_config(run / "encoders.yaml").seed == seed
        assert len(read_history(run)) == 6
    found = unseal(json.loads((tmp_path / "runs" / "seeds.json").read_text()), "seeds.json")
    assert found["runs"] == ["seed-0", "seed-1"]
    assert set(found["metrics"]) == set(FILES)
    for file, path in zip(FILES, ("transfer", "unseen_combinations", "transfer"), strict=False):
        values = [json.loads((run / file).read_text())[path]["psnr"] for run in runs]
        assert values[0] != values[1]
        assert found["metrics"][file][f"{path}.psnr"] == {
            "mean": pytest.approx(statistics.fmean(values)),
            "std": pytest.approx(abs(values[0] - values[1]) / 2**0.5),
            "values": values,
        }

    shutil.rmtree(runs[1])
    capsys.readouterr()
    assert main(command) == 0
    said = capsys.readouterr().err
    assert said.count("stage 1 is finished (3 steps)") == 1
    assert said.count("stage 2 is finished") == 1


def test_a_seed_is_refused(command, tmp_path, capsys):
    assert "--seed: the seeds are 0 to 1; leave" in fails(capsys, *command, "--seed", "3")
    assert not (tmp_path / "runs").exists()


def test_one_seed_has_no_spread(command, capsys):
    assert "--seeds 1: must be 2 or more" in fails(capsys, *command, "--seeds", "1")


def test_only_numbers_that_all_runs_have_are_summarized():
    one = {
        "codes": "latent", "step": 3, "seed": 0, "store": {"images": 5}, "transfer": None,
        "leakage": {"blind": True, "class": {"accuracy": 0.25, "interval": [0, 1], "pairs": 4}},
    }  # fmt: skip
    assert scalars(one) == {"leakage.class.accuracy": 0.25, "leakage.class.pairs": 4}
    other = {"leakage": {"class": {"accuracy": 0.75}}, "transfer": {"psnr": 3.0}}
    found = summarize([one, other])
    assert found == {
        "leakage.class.accuracy": {"mean": 0.5, "std": pytest.approx(0.125**0.5),
                                   "values": [0.25, 0.75]},
    }  # fmt: skip
