"""Checks that lord-fast's step has the losses of the published one (lord_fast.bench.published)."""

import pytest
import torch
from safetensors.torch import save_file

from lord_fast import kernels
from lord_fast.bench.published import OURS, PublishedStep, batch_of, curves, layers_of
from lord_fast.bench.step import random_weights
from lord_fast.config import replace
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources.glyphs import Glyphs
from lord_fast.data.store import ImageStore
from lord_fast.kernels import Table
from lord_fast.machine import Machine
from lord_fast.model import convolution
from lord_fast.presets import PRESETS
from lord_fast.train.latent import LatentStage

STEPS = 40


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The paper preset with narrow networks, random VGG16 weights and two taps."""
    file = tmp_path_factory.mktemp("weights") / "vgg16.safetensors"
    save_file(random_weights(), file)
    return replace(
        PRESETS["paper"], content_dim=8, class_dim=12, adain_dim=16, batch_size=4, steps=STEPS,
        perceptual_taps=("relu1_2", "relu2_2"), perceptual_weights=file,
    )  # fmt: skip


@pytest.fixture
def stage(config, tmp_path):
    """lord-fast's stage 1 on RGB glyphs, in float64 so that rounding hides no difference."""
    pack(Glyphs(32, 8, rotations=(0, 30)), tmp_path / "store", PackConfig(size=32, channels=3))
    store, machine = ImageStore(tmp_path / "store"), Machine(torch.device("cpu"), torch.float32, 2)
    stage = LatentStage(config, store, machine)
    stage.graph.double()
    for table in (stage.contents[0], stage.class_):
        state = table.state
        wide = (state.weight.double(), state.exp_avg.double(), state.exp_avg_sq.double())
        table.state = Table(*wide, state.last_step)
    return stage


@pytest.fixture(autouse=True)
def reference_kernels():
    """Only the reference takes float64 tables."""
    kernels.use("reference")
    yield
    kernels.use("auto")


def test_training_curves_agree(stage):
    """`lord-fast bench train` compares 300 steps in float32 at full width."""
    found = curves(stage, {"published": in_float64(PublishedStep.like(stage))}, STEPS)
    assert found.difference(OURS, "published") < 1e-6
    assert sum(found.losses[OURS][-10:]) < sum(found.losses[OURS][:10])


def in_float64(published: PublishedStep) -> PublishedStep:
    published.model.double()
    published.vgg.double()
    return published


@pytest.mark.parametrize("wide", [1, convolution.WIDE])
def test_loss_and_every_gradient_agree_in_float64(stage, monkeypatch, wide):
    monkeypatch.setattr(convolution, "WIDE", wide)
    monkeypatch.setattr(convolution, "COPIES_PAY", True)
    ours, published = stage, in_float64(PublishedStep.like(stage))
    ids, classes, pixels, noise = batch_of(ours, 0)
    images, noise = pixels.double() / 255, noise.double()
    theirs = published.loss(ids, classes, images, noise)
    theirs.backward()

    content = (ours.contents[0].state.weight[ids].double() + noise).requires_grad_()
    class_ = ours.class_.state.weight[classes].double().requires_grad_()
    loss = ours.graph.reconstruction(ours.decoder(content, class_), images)
    loss = loss + ours.config.loss.content_decay * content.square().sum(1).mean()
    loss.backward()
    torch.testing.assert_close(loss, theirs, rtol=1e-12, atol=0)

    model = published.model
    pairs = [
        (getattr(mine, name).grad, getattr(yours, name).grad)
        for mine, yours in zip(layers_of(ours), model.layers(), strict=True)
        for name in ("weight", "bias")
    ]
    by_class = torch.zeros_like(model.class_embedding.weight).index_add_(0, classes, class_.grad)
    pairs.append((by_class, model.class_embedding.weight.grad))
    pairs.append((content.grad, model.content_embedding.weight.grad[ids]))
    for got, wanted in pairs:
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)
