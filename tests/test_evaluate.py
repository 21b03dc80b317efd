"""Metrics on codes whose answer is known."""

import json

import numpy as np
import pytest
import torch

from lord_fast.cli import main
from lord_fast.data.store import ImageStore, as_float
from lord_fast.evaluate.codes import LatentCodes
from lord_fast.evaluate.evaluate import draw_images, evaluate
from lord_fast.evaluate.images import compare, perceptual_distance, psnr, summary
from lord_fast.evaluate.probes import probe, probe_factor, split
from lord_fast.evaluate.transfer import class_means, draw_pairs
from lord_fast.model.perceptual import VGG16
from tests.test_perceptual import random_weights
from tests.test_train import train


def two_factor_codes(classes=6, each=40, seed=0):
    rng = np.random.default_rng(seed)
    class_ids = np.repeat(np.arange(classes), each)
    factor = np.tile(np.arange(4), classes * each // 4)
    noise = 0.1 * rng.standard_normal((len(class_ids), 3))
    return rng, class_ids, factor, np.concatenate((factor[:, None], noise), axis=1)


def test_probe_reads_what_is_there_and_nothing_else():
    _, class_ids, factor, codes = two_factor_codes()
    parts = split(class_ids, seed=0)
    informed = probe(codes, factor, parts, seed=0)
    assert informed["accuracy"] > 0.95
    assert informed["mlp_accuracy"] > 0.9
    leaked = probe(codes, class_ids, parts, seed=0)
    assert leaked["accuracy"] < 0.4
    assert leaked["chance"] == pytest.approx(1 / 6, abs=0.02)
    assert leaked["scored_on"] == 80
    assert leaked["trained_on"] == 160


def test_a_small_mlp_finds_leakage_that_a_linear_probe_misses():
    """The class is the sign of a product: no linear function of the code tells it."""
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((1200, 2))
    labels = (codes[:, 0] * codes[:, 1] > 0).astype(np.int64)
    found = probe(codes, labels, split(labels, 0), seed=0)
    assert found["accuracy"] < 0.65
    assert found["mlp_accuracy"] > 0.85


def test_split_is_stratified_disjoint_and_seeded():
    class_ids = np.repeat(np.arange(20), 2)
    parts = split(class_ids, seed=1)
    assert sorted((*parts.train, *parts.test)) == list(range(40))
    assert sorted(class_ids[parts.test]) == list(range(20))
    assert np.array_equal(parts.test, split(class_ids, seed=1).test)


def test_labels_too_rare_are_not_probed():
    class_ids = np.repeat(np.arange(4), 10)
    codes = np.random.default_rng(0).standard_normal((40, 2))
    unique = np.arange(40)
    assert probe_factor(codes, unique, split(class_ids, 0), seed=0) is None


def test_compare_and_psnr():
    targets = torch.rand(10, 1, 32, 32)
    images = (targets + 0.1).clamp(0, 2)
    metrics = compare(lambda p: images[p], lambda p: targets[p], 10, None)
    assert psnr(metrics) == pytest.approx(20.0, abs=1e-3)
    same = compare(lambda p: targets[p], lambda p: targets[p], 10, None)
    assert summary(same, 0)["ssim"] == pytest.approx(1.0)
    assert summary(same, 0)["perceptual"] is None


def test_psnr_is_of_the_pooled_error():
    metrics = {"mse": torch.tensor([0.0, 0.02]).double()}
    assert psnr(metrics) == pytest.approx(20.0)


def test_perceptual_distance_is_zero_for_equal_images_and_grows():
    vgg = VGG16(random_weights(), ("relu1_2", "relu2_2"), "unit")
    targets = torch.rand(3, 1, 32, 32)
    noise = torch.randn_like(targets)
    assert perceptual_distance(vgg, targets, targets).max() == 0
    near, far = (perceptual_distance(vgg, targets + s * noise, targets) for s in (0.05, 0.5))
    assert (near < far).all()


def test_pairs_have_another_class_and_the_same_content(glyph_store):
    store = ImageStore(glyph_store)
    pairs = draw_pairs(store, seed=0, most=300)
    assert len(pairs.content) == 300
    assert (store.class_ids[pairs.content] != pairs.class_).all()
    assert torch.equal(store.class_ids[pairs.target], pairs.class_)
    assert torch.equal(store.content_ids[pairs.target], store.content_ids[pairs.content])
    assert torch.equal(store.class_ids[pairs.class_image], pairs.class_)
    assert (pairs.class_image != pairs.target).all()
    assert torch.equal(pairs.content, draw_pairs(store, seed=0, most=300).content)
    assert len(torch.stack((pairs.content, pairs.target)).unique(dim=1).T) == 300


def test_class_means(glyph_store):
    store = ImageStore(glyph_store)
    means = class_means(store)
    ids = (store.class_ids == 3).nonzero()[:, 0]
    torch.testing.assert_close(means[3], as_float(store.images(ids)).mean(0))


def test_draw_images_takes_whole_classes(glyph_store, monkeypatch):
    store = ImageStore(glyph_store)
    monkeypatch.setattr("lord_fast.evaluate.evaluate.MAX_IMAGES", 65)
    ids = draw_images(store, seed=0)
    assert torch.bincount(store.class_ids[ids]).unique().tolist() == [0, 20]
    assert len(ids) == 60


class Perfect:
    """A model that returns the true image of any class with any content."""

    step = 1

    def __init__(self, store):
        self.store = store
        self.content_codes = torch.arange(store.num_images)[:, None].float()
        self.class_codes = torch.arange(store.num_classes)[:, None].float()
        keys = torch.cat((store.class_ids[:, None], store.content_ids), dim=1).tolist()
        self.ids = {tuple(key): i for i, key in enumerate(keys)}

    def decode(self, content, class_):
        rows = [
            self.ids[(int(k), *self.store.content_ids[int(c)].tolist())]
            for c, k in zip(content[:, 0], class_[:, 0], strict=True)
        ]
        return as_float(self.store.images(torch.tensor(rows)))


def test_a_perfect_model_scores_perfectly(glyph_store):
    store = ImageStore(glyph_store)
    metrics = evaluate(LatentCodes(Perfect(store), store), store, None)
    assert metrics["reconstruction"]["psnr"] > 100
    assert metrics["transfer"]["psnr"] > 100
    assert metrics["transfer"]["class_mean_psnr"] < 30
    assert metrics["transfer"]["copy_content_psnr"] < 20


def test_the_command_writes_the_keys_of_the_contract(glyph_store, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(glyph_store, run) == 0
    assert main(["evaluate", str(run)]) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["codes"] == "latent"
    assert set(metrics["reconstruction"]) == {"psnr", "ssim", "perceptual", "interval"}
    probes = {
        "accuracy", "mlp_accuracy", "chance", "trained_on", "scored_on", "accuracy_interval",
        "mlp_accuracy_interval",
    }  # fmt: skip
    assert set(metrics["leakage"]["class_from_content"]) == probes
    assert set(metrics["leakage"]["content_from_class"]) == {"typeface", "rotation"}
    assert set(metrics["informativeness"]["content_from_content"]["typeface"]) == probes
    assert set(metrics["informativeness"]["class_from_class"]) == probes
    assert set(metrics["transfer"]) == {
        "pairs", "psnr", "ssim", "perceptual", "interval", "class_mean_psnr", "copy_content_psnr",
    }  # fmt: skip
    assert "transfer" in capsys.readouterr().out

    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert "{{" not in page
    assert "<svg" in page
