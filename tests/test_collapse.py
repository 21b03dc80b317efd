"""Tests that the generator does not collapse at the start, and that a collapse is noticed."""

import pytest
import torch
from torch import nn

from lord_fast.config import replace
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources.glyphs import Glyphs
from lord_fast.data.store import ImageStore
from lord_fast.machine import set_up
from lord_fast.model.schedule import cosine, warm_up
from lord_fast.presets import PRESETS
from lord_fast.train.initial import initialize
from lord_fast.train.latent import LatentStage
from lord_fast.train.stage import FIRST_TRAINED
from tests.test_encoders import stage_of as encoder_stage
from tests.test_train import train
from tests.test_virtual_ranks import stage_of

SATURATED = 100.0
"""A bias in front of the sigmoid at which its gradient is 0."""


def collapsed(stage: LatentStage, step: int = FIRST_TRAINED) -> bool:
    return stage.is_collapsed(stage.swapped(step), step)


def test_rates_rise_to_those_of_the_schedule():
    rates = cosine(1e-2, 1e-5, 40)
    found = warm_up(rates, 4)
    torch.testing.assert_close(found[:4], rates[:4] * torch.tensor([0.25, 0.5, 0.75, 1.0]))
    assert torch.equal(found[4:], rates[4:])
    assert torch.equal(warm_up(rates, 0), rates)
    assert (warm_up(rates, 80) < rates).all()


def test_only_the_networks_of_stage_1_warm_up(glyph_store, trained_run):
    plain, stage = stage_of(glyph_store), stage_of(glyph_store, warmup_steps=10)
    assert stage.learning_rate(0) == pytest.approx(plain.learning_rate(0) / 10)
    assert stage.learning_rate(9) == plain.learning_rate(9)
    assert torch.equal(stage.contents[0].lr, plain.contents[0].lr)
    assert torch.equal(stage.class_.lr, plain.class_.lr)
    encoders = encoder_stage(trained_run)
    assert encoders.learning_rate(0) == pytest.approx(encoders.config.lr)


def test_the_demo_does_not_collapse(tmp_path):
    """With this seed it did within 50 steps, before it had a warm-up."""
    pack(Glyphs(32), tmp_path / "store", PackConfig(size=32, channels=3))
    config = replace(PRESETS["demo"], seed=2, device="cpu")
    machine = set_up("cpu", "float32", 2)
    stage = LatentStage(config, ImageStore(tmp_path / "store"), machine)
    initialize(stage)
    for step in range(50):
        stage.step(step)
    assert not collapsed(stage)


def test_a_collapse_is_noticed_once_the_generator_has_trained(glyph_store):
    stage = stage_of(glyph_store, steps=FIRST_TRAINED)
    assert not collapsed(stage)
    nn.init.constant_(stage.decoder.generator.image.bias, SATURATED)
    assert collapsed(stage)
    assert not collapsed(stage, FIRST_TRAINED - 1)


def test_training_warns_of_a_collapse(glyph_store, tmp_path, capsys, monkeypatch):
    steps = ("--steps", str(FIRST_TRAINED))
    assert train(glyph_store, tmp_path / "good", *steps) == 0
    assert "images are alike" not in capsys.readouterr().err
    monkeypatch.setattr("lord_fast.train.stage.LEAST_SPREAD", 1e9)
    assert train(glyph_store, tmp_path / "bad", *steps) == 0
    assert "warning: all generated images are alike" in capsys.readouterr().err
