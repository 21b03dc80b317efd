"""Checks the step of the published TensorFlow code (lord_fast.bench.published_tensorflow)."""

import math

import pytest
import torch
from safetensors.torch import save_file

from lord_fast.bench.arms import EAGER, PUBLISHED, Task, build
from lord_fast.bench.published_tensorflow import TensorFlowStep
from lord_fast.bench.step import random_weights
from lord_fast.config import replace
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources.glyphs import Glyphs
from lord_fast.data.store import ImageStore, as_float
from lord_fast.machine import Machine
from lord_fast.model.build import build_vgg
from lord_fast.presets import PRESETS

STEPS = 7


@pytest.fixture
def task(tmp_path, monkeypatch):
    """A task with narrow networks on 80 RGB glyphs, so that an epoch has two steps of 32 images."""
    pack(Glyphs(32, 8, rotations=(0,)), tmp_path / "store", PackConfig(size=32, channels=3))
    save_file(random_weights(), tmp_path / "vgg16.safetensors")
    narrow = replace(PRESETS["paper"], content_dim=8, class_dim=12, adain_dim=16)
    monkeypatch.setitem(PRESETS, "paper", narrow)
    monkeypatch.setattr(TensorFlowStep, "options", TensorFlowStep.options | {"batch_size": 32})
    machine = Machine(torch.device("cpu"), torch.float32, 2)
    weights = {"caffe": tmp_path / "vgg16.safetensors"}
    return Task(ImageStore(tmp_path / "store"), machine, weights, "tensorflow")


def test_the_options_are_those_of_the_published_tensorflow_code():
    assert TensorFlowStep.options == {
        "batch_size": 64, "content_decay": 1e-3, "leaky_slope": 0.3, "perceptual_input": "caffe",
    }  # fmt: skip


def test_loss_and_gradients_are_those_of_the_recipe(task):
    """The features and the decoder of lord-fast give the same loss in float64."""
    arm = build(PUBLISHED, task, STEPS)
    stage, step = arm.stage, arm.published
    for module in (step.model, step.vgg, stage.decoder):
        module.double()
    vgg = build_vgg(stage.config, task.weights["caffe"]).double()
    assert len(vgg.taps) == 5
    ids = stage.sampler.image_ids(0)
    classes, images = task.store.class_ids[ids], as_float(task.store.images(ids)).double()
    noise = torch.randn(len(ids), 8, dtype=torch.float64)
    loss = step.loss(ids, classes, images, noise)
    loss.backward()

    content = stage.contents[0].state.weight[ids].double().requires_grad_()
    class_ = stage.class_.state.weight[classes].double()
    made = stage.decoder(content + noise, class_)
    distances = [(a - b).abs().mean() for a, b in zip(vgg(made), vgg(images), strict=True)]
    wanted = sum(distances) / 5 + 1e-3 * content.square().sum()
    wanted.backward()
    torch.testing.assert_close(loss, wanted, rtol=1e-7, atol=0)
    got = step.model.content_embedding.weight.grad[ids]
    torch.testing.assert_close(got, content.grad, rtol=1e-6, atol=1e-9)
    assert all(weight.grad is None for weight in step.vgg.parameters())


def test_learning_rates_change_between_epochs_only(task):
    arm = build(PUBLISHED, task, STEPS)
    assert arm.stage.steps_per_epoch == 2
    rates = []
    for _ in range(STEPS):
        rates.append([group["lr"] for group in arm.published.optimizer.param_groups])
        arm.train(arm.done + 1)
    for number, (networks, tables) in enumerate(rates):
        part = (1 + math.cos(math.pi * (number // 2) / 4)) / 2
        assert networks == pytest.approx(1e-5 + 2.9e-4 * part)
        assert tables == pytest.approx(1e-5 + 2.99e-3 * part)


def test_presets_keep_their_own_options(task):
    assert task.recipe("demo", STEPS, 0, EAGER).batch_size == PRESETS["demo"].batch_size
