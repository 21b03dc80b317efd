"""Tests the instruments of evaluate on codes with known leakage."""

import json
import shutil

import numpy as np
import pytest
import torch

from lord_fast.bench.step import random_weights
from lord_fast.cli import main
from lord_fast.data.content_labels import labels_are_shared
from lord_fast.data.store import ImageStore, as_float
from lord_fast.evaluate.bootstrap import interval
from lord_fast.evaluate.controls import leakage, plant, without_leak
from lord_fast.evaluate.guesses import Guesses, Wanted
from lord_fast.evaluate.lpips import Lpips
from lord_fast.evaluate.nearest import compare_nearest
from lord_fast.evaluate.probes import PROBES, probe, without_groups
from lord_fast.evaluate.score import score
from lord_fast.evaluate.splits import held_out_contents, hold_out
from lord_fast.model.density import fit_density
from lord_fast.model.perceptual import CONVOLUTIONS, POOLS
from tests.test_cli import fails
from tests.test_evaluate import grid_codes


def test_the_mlp_sees_a_leak_without_class_means_in_many_images():
    """A class is a direction with either sign, so no linear function of the code predicts it.

    An MLP that stops early on single images stops before it has learnt this.
    """
    rng = np.random.default_rng(0)
    classes, contents = np.indices((50, 50)).reshape(2, -1)
    codes = (
        rng.standard_normal((10, 16))[contents // 5] + rng.standard_normal((5, 16))[contents % 5]
    )
    codes += 0.3 * rng.standard_normal(codes.shape)
    signs = rng.choice([-1, 1], len(classes))[:, None]
    codes += 0.3 * signs * rng.standard_normal((50, 16))[classes]
    split = hold_out(classes, contents, "contents", 0)
    found = probe(codes, classes, [split], 0)
    assert found["mlp_accuracy"] > 0.08  # 0.02 with early stopping
    assert found["accuracy"] < 0.08


def test_controls_enclose_the_leakage_of_codes_without_a_leak():
    classes, contents = np.indices((20, 200)).reshape(2, -1)
    codes = np.random.default_rng(0).standard_normal((4000, 8))
    splits = [hold_out(classes, contents, "contents", 0)]
    found = leakage(codes, classes, contents, splits, 0)
    no_leak, planted = found["controls"]["no_leak"], found["controls"]["planted"]
    assert planted["oracle"] == pytest.approx(1 / 20 + 0.05, abs=0.005)
    for of in PROBES:
        assert no_leak[of] < 0.07
        assert found[of] < 0.07
    assert found["accuracy"] < planted["accuracy"] - 0.02
    assert "accuracy" not in found["blind"]


@pytest.mark.parametrize("classes_and_contents", [(20, 72), (28, 64), (62, 45)])
def test_a_probe_detects_the_planted_leak_in_stores_of_usual_sizes(classes_and_contents):
    """Codes vary more between contents than within, which hides the leak from the other probes.

    The sizes are those of COIL-20, Yale B and the demo.
    """
    classes, contents = np.indices(classes_and_contents).reshape(2, -1)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        codes = 1.5 * rng.standard_normal((classes_and_contents[1], 64))[contents]
        codes += rng.standard_normal(codes.shape)
        found = leakage(codes, classes, contents, held_out_contents(classes, contents, seed), seed)
        chance = found["chance"]
        highest = chance + 3 * (chance * (1 - chance) / found["scored_on"]) ** 0.5
        assert "centroid_accuracy" not in found["blind"]
        assert found["centroid_accuracy"] < highest
        assert found["controls"]["no_leak"]["centroid_accuracy"] < highest


def test_collapsed_codes_are_read_at_chance():
    codes, classes, contents = np.ones((400, 4)), *np.indices((20, 20)).reshape(2, -1)
    found = leakage(codes, classes, contents, held_out_contents(classes, contents, 0), 0)
    assert all(found[name] == pytest.approx(found["chance"]) for name in PROBES)


def test_few_images_are_all_scored_apart_from_their_content():
    classes, contents = np.indices((20, 72)).reshape(2, -1)
    splits = held_out_contents(classes, contents, 0)
    assert sorted(np.concatenate([split.test for split in splits])) == list(range(1440))
    for split in splits:
        assert not set(contents[split.train]) & set(contents[split.test])
    classes, contents = np.indices((20, 200)).reshape(2, -1)
    assert len(held_out_contents(classes, contents, 0)) == 1
    assert held_out_contents(np.repeat([0, 1], 50), np.arange(100), 0) == []


def test_a_mean_is_subtracted_only_from_what_several_classes_share():
    """The mean of a content of a single class would hold the class."""
    labels, groups = np.array([0, 1, 0, 0, 1]), np.array([7, 7, 8, 8, 9])
    codes = np.array([[1.0], [3.0], [5.0], [7.0], [9.0]])
    rest = without_groups(codes, labels, groups)
    assert rest[:, 0].tolist() == [-1, 1, 0, 2, 4]  # the mean of content 7 is 2, of all codes 5
    alone = without_groups(codes, labels, np.arange(5))
    assert alone[:, 0].tolist() == [-4, -2, 0, 2, 4]


def test_a_probe_with_too_few_images_is_reported_as_blind():
    codes, classes, contents = grid_codes(0, 0, classes=10, contents=6)
    splits = [hold_out(classes, contents, "contents", 0)]
    assert leakage(codes, classes, contents, splits, 0)["blind"] == list(PROBES)


def test_permuted_codes_keep_the_content_and_lose_the_class():
    codes, classes, contents = grid_codes(1.0, 0)
    clean = without_leak(codes, classes, contents, 0)
    assert sorted(map(tuple, clean)) == sorted(map(tuple, codes))
    for content in range(20):
        mine = contents == content
        assert sorted(map(tuple, clean[mine])) == sorted(map(tuple, codes[mine]))
    assert (clean == codes).all(1).mean() < 0.2
    split = [hold_out(classes, contents, "contents", 0)]
    assert probe(codes, classes, split, 0)["accuracy"] > 0.8
    assert probe(clean, classes, split, 0)["accuracy"] < 0.12


def test_the_planted_leak_has_the_documented_size():
    rng = np.random.default_rng(0)
    codes, labels = rng.standard_normal((4000, 8)), np.repeat(np.arange(40), 100)
    leaky, oracle = plant(codes, labels, 0)
    assert oracle == pytest.approx(0.075, abs=0.005)
    assert 0 < np.abs(leaky - codes).mean() < 0.5


def test_an_interval_over_clusters_covers_what_they_share():
    """Ten classes of 100 images differ, so intervals over images are ten times too narrow."""
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(10), 100)
    values = rng.standard_normal(10)[classes] + 0.1 * rng.standard_normal(1000)
    images, clusters = interval(values, 0), interval(values, 0, [classes])
    width = np.diff(clusters)[0]
    assert width > 5 * np.diff(images)[0]
    means = values.reshape(10, 100).mean(1)
    assert width == pytest.approx(4 * means.std() / 10**0.5, rel=0.3)
    contents = np.tile(np.arange(100), 10)
    assert np.diff(interval(values, 0, [classes, contents]))[0] >= 0.95 * width


def test_baselines_equal_a_direct_computation(glyph_store):
    """Each baseline is also computed in the slow way, without the true image."""
    store = ImageStore(glyph_store)
    images = as_float(store.images(torch.arange(160)))
    contents = store.content_ids[:, 0] * 2 + store.content_ids[:, 1]
    target, content = torch.tensor([3, 50]), torch.tensor([23, 10])
    assert torch.equal(contents[target], contents[content])
    codes = torch.randn(160, 4, generator=torch.Generator().manual_seed(0))

    def source(ids):
        return codes[ids], codes[ids]

    wanted = Wanted(content, store.class_ids[target], contents[target].numpy(), target)
    guesses = Guesses(store, source, wanted, 0)
    for i in range(2):
        others = torch.arange(160) != target[i]
        same_class = others & (store.class_ids == store.class_ids[target[i]])
        same_content = others & (contents == contents[target[i]])
        mean = images[same_class].mean(0)
        additive = (mean + images[same_content].mean(0) - images[others].mean(0)).clamp(0, 1)
        members = same_class.nonzero()[:, 0]
        nearest = members[(codes[members] - codes[content[i]]).norm(dim=1).argmin()]
        position = torch.tensor([i])
        made = {name: guess(position)[0] for name, guess in guesses.all().items()}
        assert torch.allclose(made["class_mean"], mean, atol=1e-5)
        assert torch.allclose(made["additive"], additive, atol=1e-5)
        assert torch.equal(made["retrieval"], images[nearest])
        assert torch.equal(made["copy_content"], images[content[i]])


def test_stage_1_is_evaluated_on_held_out_combinations(glyph_store, tmp_path):
    from tests.test_train import train

    parts, run = (tmp_path / "train", tmp_path / "heldout"), tmp_path / "run"
    assert main(["split", str(glyph_store), *map(str, parts), "--images", "0.2"]) == 0
    assert train(parts[0], run, "--threads", "1") == 0
    assert main(["evaluate", str(run), "--store", str(parts[1])]) == 0
    found = json.loads((run / "metrics-heldout.json").read_text())["unseen_combinations"]
    assert found["pairs"] > 32
    assert set(found["baselines"]) == {"class_mean", "copy_content", "additive", "retrieval"}
    low, high = found["interval"]["psnr"]
    assert low <= found["psnr"] <= high
    shutil.rmtree(parts[0])
    assert main(["evaluate", str(run), "--store", str(parts[1])]) == 2


def test_numbered_files_are_not_content_labels():
    """Labels that classes share are recognized, and consecutive numbers of the images are not."""
    rng = np.random.default_rng(0)
    classes, contents = np.indices((8, 12)).reshape(2, -1)
    images = rng.random((12, 16, 16, 1))[contents] + rng.random((8, 16, 16, 1))[classes]
    images = 100 * images + 20 * rng.random(images.shape)
    assert labels_are_shared(images, classes, contents).shared
    numbered = np.concatenate([rng.permutation(12) for _ in range(8)])
    found = labels_are_shared(images, classes, numbered)
    assert not found.shared
    assert found.similarity < 0.04
    assert labels_are_shared(images, classes, np.arange(96)) is None


def test_numbered_photos_are_not_shared_and_lightings_are(shared, tmp_path):
    flags = ("--size", "32", "--content-labels", "stem")
    for name, answer in (("orl", False), ("yaleb_28", True)):
        assert main(["pack", str(shared / "data" / name), str(tmp_path / name), *flags]) == 0
        store = ImageStore(tmp_path / name)
        labels = store.content_ids[:, 0].numpy()
        pixels = store.pixels.numpy()
        assert labels_are_shared(pixels, store.class_ids.numpy(), labels).shared is answer


def test_folds_of_a_density_hold_out_whole_contents():
    """If the 30 codes of a content were split, at least 20 Gaussians would be chosen."""
    rng = np.random.default_rng(0)
    contents = np.repeat(np.arange(20), 30)
    codes = 3 * rng.standard_normal((20, 8))[contents] + 0.1 * rng.standard_normal((600, 8))
    codes = codes.astype(np.float32)
    apart, together = fit_density(codes, 0), fit_density(codes, 0, contents)
    assert apart.mixture.n_components >= 16
    assert together.mixture.n_components <= 4


def test_lpips_equals_that_of_torchmetrics(monkeypatch):
    """The reference is torchmetrics' own network with the same weights, without torchvision."""
    import torchmetrics.functional.image.lpips as theirs

    weights = random_weights()

    def features(name, pretrained):
        layers = []
        for n in range(31):
            if n in CONVOLUTIONS:
                layers.append(torch.nn.Conv2d(*CONVOLUTIONS[n], 3, padding=1))
                layers[-1].weight.data = weights[f"features.{n}.weight"]
                layers[-1].bias.data = weights[f"features.{n}.bias"]
            else:
                layers.append(torch.nn.MaxPool2d(2) if n in POOLS else torch.nn.ReLU())
        return layers

    monkeypatch.setattr(theirs, "_get_tv_model_features", features)
    network = theirs._NoTrainLpips(net="vgg")
    images, targets = torch.rand(2, 4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = network(images, targets, normalize=True).flatten()
    for convention in ("imagenet", "unit"):
        lpips = Lpips(weights, convention)
        assert lpips.name == "lpips"
        torch.testing.assert_close(lpips(images, targets), expected, rtol=1e-4, atol=1e-6)
    assert Lpips(weights, "caffe").name == "lpips_equal_heads"


def scored(tmp_path, leak, names=False):
    codes, classes, contents = grid_codes(leak, 0)
    order = np.random.default_rng(1).permutation(400) if names else np.arange(400)
    keys = np.array([f"{i}.png" for i in range(400)])
    class_ = np.random.default_rng(0).standard_normal((20, 16))[classes]
    np.savez(tmp_path / "codes.npz", names=keys, content=codes, class_=class_)
    rows = [f"{keys[i]},k{classes[i]},a{contents[i]}" for i in order]
    (tmp_path / "labels.csv").write_text("\n".join(["name,class,angle", *rows]) + "\n")
    return score(tmp_path / "codes.npz", tmp_path / "labels.csv")


def test_score_reads_codes_of_any_model(tmp_path):
    clean, leaky = scored(tmp_path, 0), scored(tmp_path, 1.0, names=True)
    assert (clean["images"], clean["classes"]) == (400, 20)
    assert clean["leakage"]["class_from_content"]["accuracy"] < 0.1
    assert leaky["leakage"]["class_from_content"]["accuracy"] > 0.8
    assert clean["informativeness"]["class_from_class"]["accuracy"] == 1
    assert clean["informativeness"]["content_from_content"]["angle"]["accuracy"] > 0.9
    assert clean["leakage"]["content_from_class"]["angle"]["accuracy"] < 0.15


def test_score_refuses_files_that_do_not_match(tmp_path):
    codes, labels = tmp_path / "codes.npz", tmp_path / "labels.csv"
    np.savez(codes, content=np.eye(4))
    for text, message in (
        ("kind\na\n", "column class"), ("class\na\nb\n", "2 rows"),
        ("name,class\nx,a\n", "holds no names"), ("class,angle\na\n", "line 2"),
    ):  # fmt: skip
        labels.write_text(text)
        with pytest.raises(ValueError, match=message):
            score(codes, labels)
    np.savez(codes, other=np.zeros(3))
    with pytest.raises(ValueError, match="array content"):
        score(codes, labels)


GOOD = {"content": np.eye(4), "class_": np.eye(4), "names": np.array(list("abcd"))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"content": np.array(list("abcd"))}, "array content of numbers"),
        ({"content": np.array([["a", "b"]] * 4)}, "array content of numbers"),
        ({"content": np.zeros((4, 0))}, "array content of numbers"),
        ({"class_": np.array(1.0)}, "array class_ of numbers"),
        ({"class_": np.full((4, 3), np.nan)}, "class_ holds values that are not finite"),
        ({"class_": np.zeros((4, 3))}, "all codes in class_ are equal"),
        ({"class_": np.eye(3)}, "4 content codes and 3 class codes"),
        ({"names": np.array(["a"])}, r"names has shape \[1\], but there are 4 codes"),
    ],
)
def test_score_refuses_wrong_arrays(tmp_path, change, message):
    codes, labels = tmp_path / "codes.npz", tmp_path / "labels.csv"
    labels.write_text("name,class\na,x\nb,x\nc,y\nd,y\n")
    np.savez(codes, **{**GOOD, **change})
    with pytest.raises(ValueError, match=rf"codes\.npz: .*{message}"):
        score(codes, labels)


def test_score_refuses_files_that_are_no_npz(tmp_path):
    codes, labels = tmp_path / "codes.npz", tmp_path / "labels.csv"
    labels.write_text("class\nx\nx\ny\ny\n")
    np.save(tmp_path / "codes.npy", np.zeros((4, 2)))
    np.savez(codes, **GOOD)
    flipped = bytearray(codes.read_bytes())
    flipped[flipped.index(b"NUMPY") + 140] ^= 1
    for content in (b"", (tmp_path / "codes.npy").read_bytes(), flipped, b"text"):
        codes.write_bytes(content)
        with pytest.raises(ValueError, match=r"codes\.npz: not an npz file of arrays"):
            score(codes, labels)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,class\na,x\nb,x\nc,y\nd,y\na,y\n", "two rows for a"),
        ("name,class,class\na,x,y\n", "two columns class"),
    ],
)
def test_score_refuses_labels_that_are_given_twice(tmp_path, text, message):
    np.savez(tmp_path / "codes.npz", **GOOD)
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"labels\.csv: has {message}"):
        score(tmp_path / "codes.npz", tmp_path / "labels.csv")


def test_score_draws_images_if_there_are_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr("lord_fast.evaluate.draw.MAX_IMAGES", 100)
    found = scored(tmp_path, 0)
    assert found["images"] == 400
    assert found["probed"] == {"images": 100, "classes": 5, "classes_of_one_image": 0}


def test_score_refuses_a_negative_seed(capsys):
    assert "--seed -1: must be 0 or more" in fails(
        capsys, "score", "codes.npz", "labels.csv", "--seed", "-1"
    )


def test_memorized_samples_are_detected():
    generator = torch.Generator().manual_seed(0)
    trained, new = (
        torch.randn(500, 8, generator=generator),
        torch.randn(100, 8, generator=generator),
    )
    fresh, copied = (
        compare_nearest(new, trained, 1.0),
        compare_nearest(trained[:100] + 1e-3, trained, 1.0),
    )
    assert fresh["median"] == pytest.approx(fresh["real_median"], rel=0.2)
    assert fresh["nearer"] < 0.15
    assert copied["median"] < 0.01
    assert copied["nearer"] == 1
