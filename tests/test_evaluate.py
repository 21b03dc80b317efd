"""Metrics on codes whose answer is known."""

import json
import shutil

import numpy as np
import pytest
import torch

from lord_fast.bench.step import random_weights
from lord_fast.cli import main
from lord_fast.data.store import ImageStore, as_float
from lord_fast.evaluate.bootstrap import interval
from lord_fast.evaluate.codes import EncoderCodes, LatentCodes
from lord_fast.evaluate.evaluate import draw_images, evaluate
from lord_fast.evaluate.images import compare, perceptual_distance, psnr, summary
from lord_fast.evaluate.new_classes import draw_targets
from lord_fast.evaluate.probes import probe, probe_factor, split
from lord_fast.evaluate.samples import quality
from lord_fast.evaluate.transfer import class_means, draw_pairs
from lord_fast.lord import Lord
from lord_fast.model.perceptual import VGG16
from tests.test_cli import fails, packed
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
    metrics |= {"ssim": torch.ones(2).double()}
    assert summary(metrics, 0)["psnr_per_image"] == pytest.approx((100 + 16.9897) / 2)


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
    assert set(metrics["reconstruction"]) == {
        "psnr", "psnr_per_image", "ssim", "perceptual", "interval",
    }  # fmt: skip
    probes = {
        "accuracy", "mlp_accuracy", "chance", "trained_on", "scored_on", "accuracy_interval",
        "mlp_accuracy_interval",
    }  # fmt: skip
    assert set(metrics["leakage"]["class_from_content"]) == probes
    assert set(metrics["leakage"]["content_from_class"]) == {"typeface", "rotation"}
    assert set(metrics["informativeness"]["content_from_content"]["typeface"]) == probes
    assert set(metrics["informativeness"]["class_from_class"]) == probes
    assert set(metrics["transfer"]) == {
        "pairs", "psnr", "psnr_per_image", "ssim", "perceptual", "interval", "class_mean_psnr",
        "copy_content_psnr",
    }  # fmt: skip
    assert "transfer" in capsys.readouterr().out

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


def test_encoder_codes_of_held_out_images(encoder_run, glyph_store, tmp_path):
    run, parts = tmp_path / "run", (tmp_path / "train", tmp_path / "heldout")
    shutil.copytree(encoder_run, run)
    assert main(["split", str(glyph_store), *map(str, parts), "--images", "0.4"]) == 0
    assert main(["evaluate", str(run), "--codes", "encoder", "--store", str(parts[1])]) == 0
    assert [path.name for path in run.glob("metrics*")] == ["metrics-encoder-heldout.json"]
    found = json.loads((run / "metrics-encoder-heldout.json").read_text())
    assert (found["codes"], found["images"]) == ("encoder", 64)
    assert found["leakage"]["class_from_content"]["chance"] == pytest.approx(1 / 8, abs=0.03)
    low, high = found["transfer"]["interval"]["psnr"]
    assert low < found["transfer"]["psnr"] < high


def test_encoder_transfer_does_not_look_at_its_target(encoder_run, glyph_store):
    """Class and content come from two images that are not the true one."""
    store, asked = ImageStore(glyph_store), []
    codes = EncoderCodes(Lord.load(encoder_run, device="cpu"), store)

    class Spy:
        name, lord = "encoder", codes.lord

        def __call__(self, image_ids):
            asked.append(image_ids)
            return codes(image_ids)

    pairs = draw_pairs(store, 0)
    assert evaluate(Spy(), store, None)["transfer"]["pairs"] == len(pairs.target)
    content = torch.cat(asked[-2::-2][::-1])[-len(pairs.target) :]
    class_ = torch.cat(asked[-1::-2][::-1])[-len(pairs.target) :]
    assert torch.equal(content, pairs.content)
    assert torch.equal(class_, pairs.class_image)


def test_new_classes_use_shots_alone(glyph_store, tmp_path):
    assert main(
        ["split", str(glyph_store), str(tmp_path / "a"), str(tmp_path / "b"), "--classes", "2"]
    ) == 0  # fmt: skip
    trained, held_out = ImageStore(tmp_path / "a"), ImageStore(tmp_path / "b")
    drawn = draw_targets(held_out, trained, shots=5, seed=0)
    assert drawn.shots.shape == (2, 5)
    assert len(drawn.target) == 2 * 15
    assert not set(drawn.target.tolist()) & set(drawn.shots.flatten().tolist())
    assert torch.equal(held_out.class_ids[drawn.target], drawn.class_)
    assert torch.equal(held_out.class_ids[drawn.shot], drawn.class_)
    assert torch.equal(held_out.content_ids[drawn.target], trained.content_ids[drawn.content])
    with pytest.raises(ValueError, match="--shots 20"):
        draw_targets(held_out, trained, shots=20, seed=0)


def test_evaluate_of_held_out_classes(glyph_store, tmp_path, capsys):
    """A class code fitted to five images, contents of training, against the true images."""
    trained, held_out, run = tmp_path / "train", tmp_path / "people", tmp_path / "run"
    assert main(["split", str(glyph_store), str(trained), str(held_out), "--classes", "2"]) == 0
    assert train(trained, run, "--threads", "1") == 0
    command = ["evaluate", str(run), "--codes", "fit", "--fit-steps", "5"]
    assert main([*command, "--store", str(held_out)]) == 0
    found = json.loads((run / "metrics-fit-people.json").read_text())
    new = found["new_classes"]
    assert (new["classes"], new["shots"], new["pairs"]) == (2, 5, 30)
    assert {"psnr", "interval", "shots_mean_psnr", "copy_content_psnr"} <= set(new)
    assert new["encoder_one_image"] is None
    assert "with --store" in fails(capsys, *command)
    assert "was trained on" in fails(capsys, *command, "--store", trained)


def test_evaluate_refusals(trained_run, encoder_run, glyph_store, tmp_path, capsys):
    error = fails(capsys, "evaluate", trained_run, "--codes", "encoder")
    assert "train-encoders" in error
    other = packed(tmp_path, {"a": 4, "b": 4}, size=64)
    error = fails(capsys, "evaluate", encoder_run, "--codes", "encoder", "--store", other)
    assert "64 x 64 x 1" in error
    assert "not a packed store" in fails(capsys, "evaluate", encoder_run, "--store", tmp_path)
    error = fails(capsys, "evaluate", encoder_run, "--store", other)
    assert "not the images that" in error
    assert not list(trained_run.glob("metrics-*"))


def test_features_may_lie_on_another_device():
    """As on a GPU, where the images to compare are on the CPU; `meta` stands for it."""
    with torch._subclasses.FakeTensorMode():
        weights = {name: torch.empty(tensor.shape) for name, tensor in random_weights().items()}
        vgg = VGG16(weights, ("relu1_2",), "unit").to("meta")
        found = perceptual_distance(vgg, torch.rand(3, 1, 32, 32), torch.rand(3, 1, 32, 32))
        assert (found.shape, found.device.type) == ((3,), "cpu")


def test_the_kernel_distance_does_not_depend_on_the_scale_of_the_features():
    generator = torch.Generator().manual_seed(0)
    real, made = (torch.rand(100, 8, generator=generator) + shift for shift in (0, 0.3))
    small, large = quality(real, made, 0), quality(1e4 * real, 1e4 * made, 0)
    assert small["kernel_distance"] > 0.01
    assert large["kernel_distance"] == pytest.approx(small["kernel_distance"], rel=1e-3)
    assert large["interval"] == pytest.approx(small["interval"], rel=1e-3, abs=1e-5)
