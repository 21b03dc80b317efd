"""Tests metrics on codes for which the right answer is known."""

import json

import numpy as np
import pytest
import torch

from lord_fast.bench.step import random_weights
from lord_fast.cli import main
from lord_fast.data.store import ImageStore, as_float
from lord_fast.evaluate.bootstrap import interval
from lord_fast.evaluate.code_sources import LatentCodes
from lord_fast.evaluate.draw import draw_images
from lord_fast.evaluate.evaluate import evaluate
from lord_fast.evaluate.images import compare, psnr, summary
from lord_fast.evaluate.lpips import Lpips
from lord_fast.evaluate.probes import probe, probe_factor
from lord_fast.evaluate.samples import quality
from lord_fast.evaluate.splits import hold_out, hold_out_folds, stratified
from lord_fast.evaluate.transfer import draw_pairs
from lord_fast.run.metrics import rows
from tests.test_cli import packed
from tests.test_train import train


def two_factor_codes(classes=6, each=40, seed=0):
    rng = np.random.default_rng(seed)
    class_ids = np.repeat(np.arange(classes), each)
    factor = np.tile(np.arange(4), classes * each // 4)
    noise = 0.1 * rng.standard_normal((len(class_ids), 3))
    return rng, class_ids, factor, np.concatenate((factor[:, None], noise), axis=1)


def test_probes_read_only_what_the_codes_hold():
    _, class_ids, factor, codes = two_factor_codes()
    splits = [stratified(class_ids, seed=0)]
    informed = probe(codes, factor, splits, seed=0)
    assert informed["accuracy"] > 0.95
    assert informed["mlp_accuracy"] > 0.9
    leaked = probe(codes, class_ids, splits, seed=0)
    assert leaked["accuracy"] < 0.4
    assert leaked["chance"] == pytest.approx(1 / 6, abs=0.02)
    assert (leaked["trained_on"], leaked["scored_on"]) == (6 * 27, 6 * 13)
    assert leaked["split"] == "stratified by class"


def test_a_small_mlp_finds_leakage_that_a_linear_probe_misses():
    """The class is the sign of a product, which no linear function of the code predicts."""
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((1200, 2))
    labels = (codes[:, 0] * codes[:, 1] > 0).astype(np.int64)
    found = probe(codes, labels, [stratified(labels, 0)], seed=0)
    assert found["accuracy"] < 0.65
    assert found["mlp_accuracy"] > 0.85


def test_split_is_stratified_disjoint_and_seeded():
    class_ids = np.repeat(np.arange(20), 2)
    parts = stratified(class_ids, seed=1)
    assert sorted((*parts.train, *parts.test)) == list(range(40))
    assert sorted(class_ids[parts.test]) == list(range(20))
    assert np.array_equal(parts.test, stratified(class_ids, seed=1).test)


def test_every_class_has_images_to_score_on():
    class_ids = np.repeat(np.arange(5), (2, 2, 2, 100, 1))
    for seed in range(5):
        parts = stratified(class_ids, seed)
        assert np.bincount(class_ids[parts.test]).tolist() == [1, 1, 1, 33]
        assert np.bincount(class_ids[parts.train]).tolist() == [1, 1, 1, 67, 1]


def grid_codes(leak, seed, classes=20, contents=20):
    """Return codes of a grid of classes and contents, which leak the class by `leak`."""
    rng = np.random.default_rng(seed)
    class_ids, content_ids = np.indices((classes, contents)).reshape(2, -1)
    codes = rng.standard_normal((contents, 16))[content_ids]
    codes += leak * rng.standard_normal((classes, 16))[class_ids]
    return codes + 0.1 * rng.standard_normal(codes.shape), class_ids, content_ids


@pytest.mark.parametrize("seed", [0, 1])
def test_class_leakage_of_a_grid_is_at_chance_without_a_leak_and_above_with_one(seed):
    """If single images of a grid were held out, a probe could exclude the right class."""
    codes, class_ids, contents = grid_codes(0, seed)
    none = probe(codes, class_ids, [hold_out(class_ids, contents, "contents", seed)], seed)
    low, high = none["accuracy_interval"]
    assert low < none["chance"] == 0.05 < high
    assert none["split"] == "contents held out"
    assert (none["trained_on"], none["scored_on"]) == (260, 140)
    assert probe(codes, class_ids, [stratified(class_ids, seed)], seed)["accuracy"] < 0.01

    codes, class_ids, contents = grid_codes(0.3, seed)
    some = probe(codes, class_ids, [hold_out(class_ids, contents, "contents", seed)], seed)
    assert some["accuracy_interval"][0] > 0.05


@pytest.mark.parametrize("seed", [0, 1])
def test_content_leakage_of_one_code_per_class_is_at_chance(seed):
    """If single images were held out, the labels of a class would show which content is left."""
    _, class_ids, contents = grid_codes(0, seed)
    codes = np.random.default_rng(seed).standard_normal((20, 16))[class_ids]
    found = probe_factor(codes, contents, class_ids, seed)
    assert found["accuracy"] == pytest.approx(0.05)
    assert found["split"] == "classes held out"
    codes[:, 0] += contents
    assert probe_factor(codes, contents, class_ids, seed)["mlp_accuracy"] > 0.1


def test_groups_are_held_out_if_labels_share_them():
    _, class_ids, contents = grid_codes(0, 0)
    parts = hold_out(class_ids, contents, "contents", 0)
    assert not set(contents[parts.train]) & set(contents[parts.test])
    assert set(class_ids[parts.train]) == set(range(20))
    assert hold_out(class_ids, np.arange(400), "contents", 0) is None  # every content once
    assert hold_out(class_ids, np.zeros(400, int), "contents", 0) is None  # no labels at all
    alone = np.concatenate((class_ids[class_ids < 19], [19]))  # the last class: with content 0
    for seed in range(10):
        assert 19 in alone[hold_out(alone, contents[:381], "contents", seed).train]


def test_folds_score_each_image_with_a_probe_that_never_saw_its_content():
    _, class_ids, contents = grid_codes(0, 0)
    scored = np.random.default_rng(0).random(400) < 0.2
    folds = hold_out_folds(class_ids, contents, scored, "contents", 0)
    assert len(folds) == 3
    assert sorted(np.concatenate([f.test for f in folds])) == np.flatnonzero(scored).tolist()
    for fold in folds:
        assert not scored[fold.train].any()
        assert not set(contents[fold.train]) & set(contents[fold.test])
    (whole,) = hold_out_folds(class_ids, np.arange(400), scored, "contents", 0)
    assert np.array_equal(whole.train, np.flatnonzero(~scored))
    unknown = hold_out_folds(class_ids + 20 * scored, contents, scored, "contents", 0)
    assert unknown == []


def test_rare_labels_are_not_probed():
    class_ids = np.repeat(np.arange(4), 10)
    codes = np.random.default_rng(0).standard_normal((40, 2))
    unique = np.arange(40)
    assert probe_factor(codes, unique, class_ids, seed=0) is None


def test_a_factor_with_one_label_to_score_is_not_probed():
    """A constant guess would be right, and chance would be 100 %."""
    class_ids = np.repeat(np.arange(6), 3)
    labels = np.array([1, 2, 2, 0, 1, 0, 0, 2, 0, 2, 2, 0, 2, 1, 2, 2, 1, 1])
    codes = np.random.default_rng(0).standard_normal((18, 2))
    assert probe_factor(codes, labels, class_ids, seed=0) is None


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
    metrics |= {"ssim": torch.ones(2).double()}
    assert summary(metrics, 0)["psnr_per_image"] == pytest.approx((100 + 16.9897) / 2)


def test_perceptual_distance_is_zero_for_equal_images_and_grows():
    lpips = Lpips(random_weights(), "unit")
    targets = torch.rand(3, 1, 32, 32)
    noise = torch.randn_like(targets)
    assert lpips(targets, targets).max() == 0
    near, far = (lpips(targets + s * noise, targets) for s in (0.05, 0.5))
    assert (near < far).all()


def test_features_may_be_on_another_device():
    """`meta` plays the role of a GPU, while the images are on the CPU."""
    lpips = Lpips(random_weights(), "caffe")
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True):
        found = lpips.to("meta")(torch.rand(3, 1, 32, 32), torch.rand(3, 1, 32, 32))
        assert (found.shape, found.device.type) == ((3,), "cpu")


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


def test_a_class_of_one_image_is_no_target(tmp_path):
    store = ImageStore(packed(tmp_path, {"a": 6, "b": 6, "c": 1}))
    pairs = draw_pairs(store, seed=0)
    assert set(pairs.class_.tolist()) == {0, 1}
    assert 2 in store.class_ids[pairs.content]
    assert (pairs.class_image != pairs.target).all()


def test_draw_images_takes_whole_classes(glyph_store):
    store = ImageStore(glyph_store)
    ids = draw_images(store, seed=0, most=65)
    assert torch.bincount(store.class_ids[ids]).unique().tolist() == [0, 20]
    assert len(ids) == 60


def test_large_classes_are_reduced_and_all_classes_are_kept(glyph_store, monkeypatch):
    """Each of 8 classes keeps the same 8 of 20 contents, instead of only two whole classes."""
    monkeypatch.setattr("lord_fast.evaluate.draw.ENOUGH_OF_A_CLASS", 5)
    store = ImageStore(glyph_store)
    ids = draw_images(store, seed=0, most=65)
    classes, contents = store.class_ids[ids], store.content_ids[ids]
    assert torch.bincount(classes).tolist() == [8] * 8
    assert len({str(sorted(contents[classes == k].tolist())) for k in range(8)}) == 1
    assert not torch.equal(ids, draw_images(store, seed=1, most=65))


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


def test_the_class_mean_does_not_hold_its_target(glyph_store, quick):
    store = ImageStore(glyph_store)
    images, pairs = as_float(store.images(torch.arange(160))), draw_pairs(store, 0, 50)
    errors = []
    for target, class_id in zip(pairs.target, pairs.class_, strict=True):
        others = (store.class_ids == class_id) & (torch.arange(160) != target)
        errors.append((images[others].mean(0) - images[target]).square().mean())
    metrics = evaluate(LatentCodes(Perfect(store), store), store, None)
    expected = float(-10 * torch.stack(errors).mean().log10())
    assert metrics["transfer"]["class_mean_psnr"] == pytest.approx(expected, abs=1e-3)


def test_classes_of_one_image_are_left_out_of_the_probes_only(tmp_path):
    store = ImageStore(packed(tmp_path, {"a": 6, "b": 6, "c": 1}))
    metrics = evaluate(LatentCodes(Perfect(store), store), store, None)
    assert metrics["probed"] == {"images": 12, "classes": 2, "classes_of_one_image": 1}
    assert metrics["leakage"]["class_from_content"]["chance"] == 0.5
    printed = {row[0]: row[1:] for row in rows(metrics)}
    assert printed["probes"] == ("12 images of 2 classes", "left out, with one image each: 1")


def test_a_store_of_one_class_is_evaluated(tmp_path):
    store = ImageStore(packed(tmp_path, {"a": 6}))
    metrics = evaluate(LatentCodes(Perfect(store), store), store, None)
    assert metrics["reconstruction"]["psnr"] > 100
    printed = {row[0]: row[1:] for row in rows(metrics)}
    for name in ("leakage", "informativeness"):
        assert printed[name] == ("not measured", "fewer than two classes have two images or more")
    assert printed["transfer"][0] == "not measured"
    with pytest.raises(ValueError, match="repeat lord-fast evaluate"):
        rows({"codes": "latent", "leakage": None})


def test_the_command_writes_all_keys_of_metrics_json(glyph_store, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(glyph_store, run) == 0
    assert main(["evaluate", str(run)]) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["codes"] == "latent"
    assert set(metrics["reconstruction"]) == {
        "psnr", "psnr_per_image", "ssim", "perceptual", "interval", "class_mean_psnr",
    }  # fmt: skip
    probes = {
        "accuracy", "mlp_accuracy", "chance", "trained_on", "scored_on", "accuracy_interval",
        "mlp_accuracy_interval", "split", "centroid_accuracy", "centroid_accuracy_interval",
    }  # fmt: skip
    controls = {"controls", "blind"}
    assert metrics["probed"] == {"images": 160, "classes": 8, "classes_of_one_image": 0}
    assert metrics["content_rate"]["what"] == "content labels"
    assert metrics["content_rate"]["bits"] > 0
    assert set(metrics["leakage"]) == {
        "class_from_content", "class_from_seen_content", "content_from_class",
    }  # fmt: skip
    assert set(metrics["leakage"]["class_from_content"]) == probes | controls
    assert set(metrics["leakage"]["class_from_seen_content"]) == probes | controls
    assert set(metrics["leakage"]["content_from_class"]) == {"typeface", "rotation"}
    assert set(metrics["informativeness"]["content_from_content"]["typeface"]) == probes
    assert set(metrics["informativeness"]["class_from_class"]) == probes
    assert set(metrics["transfer"]) == {
        "pairs", "psnr", "psnr_per_image", "ssim", "perceptual", "interval", "class_mean_psnr",
        "copy_content_psnr", "baselines",
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "recognisable?" in printed
    assert "additive" in printed
    assert "informativeness" not in printed
    assert main(["evaluate", str(run), "--all"]) == 0
    assert "informativeness" in capsys.readouterr().out
    assert "needs VGG16" in metrics["samples"]["missing"]


def test_interval_covers_the_mean_and_shrinks_with_more_images():
    rng = np.random.default_rng(0)
    few, many = rng.standard_normal(30), rng.standard_normal(3000)
    low, high = interval(few, seed=0)
    assert low < few.mean() < high
    assert high - low == pytest.approx(4 * few.std() / 30**0.5, rel=0.2)
    assert np.diff(interval(many, seed=0)) < 0.2 * (high - low)
    assert interval(few, seed=0) == [low, high]


def test_quality_of_samples():
    generator = torch.Generator().manual_seed(0)
    real, same, far = (torch.randn(200, 8, generator=generator) for _ in range(3))
    good, bad = quality(real, same, 0), quality(real, far + 5, 0)
    assert abs(good["kernel_distance"]) < 0.1 < bad["kernel_distance"]
    assert bad["precision"] == bad["recall"] == 0
    assert good["precision"] > 0.8
    assert good["recall"] > 0.8
    narrow = quality(real, 0.05 * same, 0)  # inside the data, but not all of it
    assert narrow["precision"] > 0.8
    assert narrow["recall"] < 0.3


def test_the_kernel_distance_does_not_depend_on_the_scale_of_the_features():
    generator = torch.Generator().manual_seed(0)
    real, made = (torch.rand(100, 8, generator=generator) + shift for shift in (0, 0.3))
    small, large = quality(real, made, 0), quality(1e4 * real, 1e4 * made, 0)
    assert small["kernel_distance"] > 0.01
    assert large["kernel_distance"] == pytest.approx(small["kernel_distance"], rel=1e-3)
    assert large["interval"] == pytest.approx(small["interval"], rel=1e-3, abs=1e-5)
