"""Tests of the cache of VGG16 features."""

import pytest
import torch

from lord_fast.bench.step import random_weights
from lord_fast.model import features
from lord_fast.model.features import FeatureCache
from lord_fast.model.perceptual import VGG16, PerceptualLoss

TAPS = ("relu1_2", "relu2_2")


@pytest.fixture
def vgg():
    return VGG16(random_weights(), TAPS, "caffe")


def test_cached_features_give_the_same_loss_and_gradient(vgg):
    targets = torch.rand(10, 1, 32, 32)
    cache = FeatureCache(vgg, targets.split(4), len(targets))
    rows = torch.tensor([9, 0, 5])
    loss = PerceptualLoss(vgg, 1.0, 0.1)
    found = []
    for wanted in (None, cache(rows)):
        images = torch.full((3, 1, 32, 32), 0.5, requires_grad=True)
        value = loss(images, targets[rows], wanted)
        value.backward()
        found.append((value.detach(), images.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-7)


def test_features_that_do_not_fit_into_memory_are_refused(vgg, monkeypatch):
    monkeypatch.setattr(features, "free_memory", lambda device: 10**6)
    with pytest.raises(ValueError, match=r"--cache-target-features on: .* 10 images take"):
        FeatureCache(vgg, torch.rand(10, 1, 32, 32).split(4), 10)
