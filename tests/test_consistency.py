"""Tests class consistency on models for which the right answer is known, and memory."""

import shutil

import pytest
import torch

from lord_fast.cli import main
from lord_fast.data.split import split_images
from lord_fast.data.store import ImageStore, as_float
from lord_fast.evaluate.classifier import classify, train_classifier
from lord_fast.evaluate.consistency import class_consistency
from lord_fast.evaluate.images import Pictures, read_reduced, reduced
from lord_fast.evaluate.nearest import _Images, compare_nearest
from lord_fast.run.field_rows import consistency_rows
from lord_fast.system import INFERENCE_BATCH


class Planted:
    """A model that decodes real images. The codes are the image itself and the class.

    `perfect` returns the image with the requested class and the content of the image. `copy`
    ignores the class, and `noise` returns noise.
    """

    name = "planted"

    def __init__(self, store, kind):
        self.store, self.kind, self.lord = store, kind, self
        contents = store.content_ids[:, 0] * 2 + store.content_ids[:, 1]
        self.contents = contents
        self.table = {
            (int(k), int(c)): i
            for i, (k, c) in enumerate(zip(store.class_ids, contents, strict=True))
        }

    def __call__(self, image_ids):
        return image_ids[:, None], self.store.class_ids[image_ids][:, None]

    def decode(self, content, class_):
        ids = content[:, 0]
        if self.kind == "noise":
            return torch.rand(len(ids), 1, 32, 32, generator=torch.Generator().manual_seed(0))
        if self.kind == "perfect":
            wanted = zip(class_[:, 0].tolist(), self.contents[ids].tolist(), strict=True)
            ids = torch.tensor([self.table[pair] for pair in wanted])
        return as_float(self.store.images(ids))


@pytest.fixture(scope="module")
def found(glyph_store):
    store = ImageStore(glyph_store)
    return {
        kind: class_consistency(Planted(store, kind), store, 0)
        for kind in ("perfect", "copy", "noise")
    }


def test_a_perfect_model_reaches_the_accuracy_on_real_images(found):
    perfect = found["perfect"]
    assert perfect["real"]["accuracy"] > 0.8
    assert perfect["real"]["split"] == "contents held out"
    assert perfect["swaps"] == pytest.approx(perfect["real"]["accuracy"], abs=0.15)
    assert perfect["reconstructions"] == perfect["real"]["accuracy"]
    assert perfect["content_class"] < 0.1
    low, high = perfect["interval"]
    assert low <= perfect["swaps"] <= high
    assert perfect["classes"] == 8
    assert perfect["real"]["trained_on"] + perfect["scored_on"] == 160


def test_models_that_ignore_the_class_are_found_out(found):
    assert found["copy"]["swaps"] < 0.1
    assert found["copy"]["content_class"] == found["copy"]["real"]["accuracy"]
    assert found["noise"]["swaps"] < 0.35
    assert found["noise"]["real"] == found["perfect"]["real"]
    assert found["noise"]["chance"] == pytest.approx(1 / 8, abs=0.1)


def test_held_out_images_are_scored_by_a_classifier_of_the_training_images(glyph_store, tmp_path):
    parts = tmp_path / "train", tmp_path / "heldout"
    split_images(glyph_store, *parts, 0.2, 0)
    trained, held_out = map(ImageStore, parts)
    copied = class_consistency(Planted(held_out, "copy"), held_out, 0, trained)
    assert copied["real"]["split"] == "other images of the run's store"
    assert copied["real"]["trained_on"] == trained.num_images
    assert copied["scored_on"] == held_out.num_images
    assert copied["real"]["accuracy"] > 0.8
    [(_, figure, why)] = consistency_rows(copied)
    assert "of 32 swaps" in figure
    assert "(ceiling)" in why


def test_one_class_is_not_measured(glyph_store):
    store = ImageStore(glyph_store)
    store.class_ids = torch.zeros_like(store.class_ids)
    missing = class_consistency(Planted(store, "copy"), store, 0)
    assert "fewer than two classes" in missing["missing"]
    assert consistency_rows(missing) == [("class consistency", "not measured", missing["missing"])]


def test_the_classifier_is_the_same_every_time():
    images = torch.rand(40, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 4
    torch.manual_seed(1)
    first = classify(train_classifier(images, labels, 4, 0), images)
    torch.manual_seed(2)
    assert torch.equal(first, classify(train_classifier(images, labels, 4, 0), images))
    assert (first == labels).float().mean() > 0.9


# Memory


def test_evaluation_never_holds_many_whole_images(encoder_run, tmp_path, monkeypatch, quick):
    """Images of 256 px take 0.8 MB each as float32, so no part may read thousands at once."""
    monkeypatch.setattr("lord_fast.evaluate.draw.MAX_IMAGES", 160)
    shutil.copytree(encoder_run, tmp_path / "run")
    read, most = ImageStore.images, []

    def counted(store, image_ids):
        most.append(len(image_ids))
        return read(store, image_ids)

    monkeypatch.setattr(ImageStore, "images", counted)
    for codes in ("latent", "encoder"):
        assert main(["evaluate", str(tmp_path / "run"), "--codes", codes]) == 0
    assert sum(most) > 500
    assert max(most) <= INFERENCE_BATCH


def test_reduced_images_and_lazy_images_are_those_of_the_store(glyph_store):
    store, ids = ImageStore(glyph_store), torch.randperm(160)[:100]
    images = as_float(store.images(ids))
    assert torch.equal(read_reduced(store, ids), images)
    large = torch.rand(2, 3, 64, 64)
    expected = large.reshape(2, 3, 32, 2, 32, 2).mean((3, 5))
    torch.testing.assert_close(reduced(large), expected)
    pictures = Pictures(store, ids)
    assert len(pictures) == 100
    for place in (0, 99):
        assert (pictures[place] == store.images(ids)[place].permute(1, 2, 0).numpy()).all()


def test_distances_in_batches_equal_direct_ones(glyph_store):
    store, ids = ImageStore(glyph_store), torch.arange(160)
    trained, made = as_float(store.images(ids)).flatten(1), torch.rand(90, 1024)
    direct = torch.cdist(made, trained).min(1).values / 32
    own = torch.cdist(trained[:90], trained)
    own.fill_diagonal_(torch.inf)
    real = own.min(1).values / 32
    for points in (trained, _Images(store, ids)):
        found = compare_nearest(made, points, 32.0)
        assert found["median"] == pytest.approx(float(direct.median()), rel=1e-4)
        assert found["real_median"] == pytest.approx(float(real.median()), rel=1e-4)
