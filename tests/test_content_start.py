"""Tests content codes that start from statistics of the images (lord_fast.train.content_start)."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from lord_fast.data.store import ImageStore
from lord_fast.lord import Lord
from lord_fast.model.image_statistics import COUNT, image_statistics
from lord_fast.train import content_start
from lord_fast.train.content_start import LARGEST, start_content, statistics_codes
from tests.test_train import train
from tests.test_virtual_ranks import stage_of
from tests.test_warm_start import ONE_STEP


@pytest.fixture
def store(glyph_store):
    return ImageStore(glyph_store)


def test_statistics_know_brightness_contrast_and_direction():
    stripes = torch.zeros(1, 1, 32, 32)
    stripes[..., ::8, :] = stripes[..., 1::8, :] = stripes[..., 2::8, :] = 1
    lying, standing = image_statistics(stripes)[0], image_statistics(stripes.transpose(2, 3))[0]
    assert lying.shape == (COUNT,)
    assert lying[10] == pytest.approx(float(stripes.mean()))
    # Order 2 of the histogram is cos(2 direction): 1 across the image, -1 along it.
    assert lying[1] == pytest.approx(-float(lying[0]), rel=1e-4)
    assert standing[1] == pytest.approx(float(standing[0]), rel=1e-4)
    inverted = image_statistics(1 - stripes)[0]
    torch.testing.assert_close(inverted[:9], lying[:9])


def test_statistics_of_large_and_coloured_images_are_those_of_the_reduced_image():
    small = torch.rand(3, 1, 32, 32)
    large = small.repeat_interleave(4, 2).repeat_interleave(4, 3).expand(-1, 3, -1, -1)
    torch.testing.assert_close(image_statistics(large), image_statistics(small))


def test_a_moved_spot_moves_the_centre_only():
    image = torch.zeros(2, 1, 32, 32)
    image[0, 0, 12:16, 12:16] = image[1, 0, 16:20, 12:16] = 1
    first, second = image_statistics(image)
    torch.testing.assert_close(first[:-5], second[:-5])
    assert second[-4] - first[-4] == pytest.approx(8 / 28)


def test_codes_agree_between_classes_and_do_not_tell_the_class(store):
    """A probe that learns the rotation on some classes knows it in the others."""
    codes = statistics_codes(store, 16)
    assert codes.shape == (store.num_images, 16)
    assert codes[:, 0].std(correction=0) == pytest.approx(LARGEST, rel=1e-4)
    assert codes.mean(0).abs().max() < 1e-4
    classes = store.class_ids.numpy()
    means = np.stack([codes.numpy()[classes == c].mean(0) for c in range(store.num_classes)])
    assert np.abs(means).max() < 1e-3
    rotation = np.asarray(store.content_ids)[:, 1]
    learn = classes < store.num_classes // 2
    probe = LogisticRegression(max_iter=1000).fit(codes[learn], rotation[learn])
    chance = 1 / len(np.unique(rotation))
    assert probe.score(codes[~learn], rotation[~learn]) > chance + 0.3


def test_constant_images_get_finite_codes(store, monkeypatch):
    monkeypatch.setattr(ImageStore, "images", lambda self, ids: torch.zeros(len(ids), 1, 32, 32))
    assert statistics_codes(store, 16).isfinite().all()


def test_codes_are_set_in_parts(glyph_store, monkeypatch):
    whole, parts = stage_of(glyph_store), stage_of(glyph_store)
    start_content(whole)
    monkeypatch.setattr(content_start, "CHUNK_ROWS", 37)
    start_content(parts)
    codes = [stage.contents[0].codes(0) for stage in (whole, parts)]
    torch.testing.assert_close(*codes)


def test_images_on_another_device_are_copied_to_the_cpu(store, monkeypatch):
    class Elsewhere(torch.Tensor):
        def cpu(self):
            return self.as_subclass(torch.Tensor)

        def to(self, *args, **kwargs):
            raise AssertionError("computed where the images lie")

    wanted, real = statistics_codes(store, 16), ImageStore.images
    monkeypatch.setattr(
        ImageStore, "images", lambda self, ids: real(self, ids).as_subclass(Elsewhere)
    )
    assert torch.equal(statistics_codes(store, 16), wanted)


def test_threads_do_not_change_the_codes(store):
    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(statistics_codes(store, 16))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert torch.equal(*found)


def test_training_starts_from_them_and_saves_all_codes(glyph_store, tmp_path, capsys):
    """The run has 4 dimensions. One step updates 32 of 160 images."""
    run = tmp_path / "run"
    assert train(glyph_store, run, "--content-init", "statistics", *ONE_STEP) == 0
    assert "start:   content codes from 4 components of image statistics" in capsys.readouterr().err
    wanted = statistics_codes(ImageStore(glyph_store), 4)
    found = Lord.load(run, "cpu").content_codes
    assert (found - wanted).abs().max() <= 0.051
    assert not torch.equal(found, wanted)  # the uniform codes are added


def test_a_longer_code_keeps_its_other_dimensions_uniform(glyph_store, tmp_path):
    run = tmp_path / "run"
    options = ("--content-init", "statistics", "--content-dim", str(COUNT + 6), *ONE_STEP)
    assert train(glyph_store, run, *options) == 0
    found = Lord.load(run, "cpu").content_codes
    assert found[:, COUNT:].abs().max() <= 0.051
    assert found[:, :COUNT].abs().amax(0).max() > 1


def test_every_virtual_rank_gets_the_codes_of_its_images(glyph_store):
    stage = stage_of(glyph_store, virtual_ranks=2)
    start_content(stage)
    ids = torch.arange(stage.store.num_images)
    wanted = statistics_codes(stage.store, stage.config.model.content_dim)
    assert (stage.grid_codes(0, ids, ids)[0] - wanted).abs().max() <= 0.051


def test_codes_of_another_run_win(glyph_store, trained_run, tmp_path, capsys):
    run = tmp_path / "run"
    options = ("--content-init", "statistics", "--init-from", str(trained_run), *ONE_STEP)
    assert train(glyph_store, run, *options) == 0
    assert "statistics" not in capsys.readouterr().err.replace("--content-init statistics", "")
    old, new = Lord.load(trained_run, "cpu"), Lord.load(run, "cpu")
    assert torch.allclose(old.content_codes, new.content_codes, atol=1e-6)
