"""Tests grids with labels, and images that show and save themselves."""

import copy
import io

import numpy as np
import pytest
import torch
from PIL import Image

from lord_fast.grid import GAP, MOST_TEXT, draw, stack, tile
from lord_fast.images import Images

BLACK, GREY = torch.zeros(1, 64, 64), torch.full((1, 64, 64), 0.5)


def ink(pixels: np.ndarray) -> bool:
    return bool((pixels < 128).any())


def test_labels_fit_above_and_beside_their_tiles():
    picture = draw([[GREY, GREY]] * 2, ["one", ""], ["", "left"])
    left, top = picture.shape[1] - (2 * 66 + 2 * GAP), picture.shape[0] - (2 * 66 + 2 * GAP)
    grid = picture[top:, left:]
    assert (grid[:64, :64] == 128).all()
    assert (grid[-64 - GAP : -GAP, -64 - GAP : -GAP] == 128).all()
    assert ink(picture[:top, left : left + 64])
    assert not ink(picture[:top, left + 66 :])
    assert not ink(picture[top : top + 64, :left])
    assert ink(picture[top + 66 :, :left])


def test_wide_labels_are_turned_and_never_overlap():
    """Every label stays above its own column, however long it is."""
    names = ["a rather long name", "", "another rather long name", ""]
    picture = draw([[GREY] * 4], names, [""], (), ())
    top = picture.shape[0] - 66
    assert top > 100
    for i in range(4):
        x = picture.shape[1] - (4 - i) * 66
        assert ink(picture[:top, x : x + 66]) == bool(names[i])
    assert draw([[GREY]], ["x" * 500], [""], (), ()).shape[0] <= MOST_TEXT + 66 + 4 * GAP


def test_small_images_are_enlarged_and_rows_set_apart():
    small = torch.linspace(0, 1, 32 * 32).reshape(1, 32, 32)
    picture = draw([[small], [small], [small]], [""], [""] * 3, (1,), ())
    rows = [i for i in range(picture.shape[0]) if (picture[i, -66:-2] < 250).any()]
    assert len(rows) == 3 * 64
    assert rows[64] - rows[63] == 3 * GAP + 1
    assert rows[128] - rows[127] == GAP + 1
    enlarged = picture[-66:-2, -66:-2][::2, ::2, 0]
    assert np.abs(enlarged / 255 - small[0].numpy()).max() < 0.01


def test_letters_of_many_alphabets_are_drawn():
    pictures = [draw([[GREY]], [name], [""], (), ()) for name in ("Ωж", "Жω", "⁇⁇")]
    assert not np.array_equal(pictures[0], pictures[1])


def test_pictures_are_stacked():
    stacked = stack([np.zeros((4, 6, 3), np.uint8), np.full((4, 3, 3), 9, np.uint8)])
    assert stacked.shape == (8 + 4 * GAP, 6, 3)
    assert (stacked[-4:, -3:] == 9).all()


def test_images_are_a_tensor_that_shows_itself(tmp_path):
    images = Images.of(torch.rand(10, 1, 32, 32))
    picture = Image.open(io.BytesIO(images._repr_png_()))
    assert picture.size == tile([[BLACK[:, :32, :32]] * 4] * 3, sources=False).shape[1::-1]
    assert type(images + 1) is torch.Tensor
    assert type(images[2]) is Images
    assert images.mean()._repr_png_ if isinstance(images.mean(), Images) else True
    assert [type(each) for each in images] == [Images] * 10
    assert images[0, 0, 0]._repr_png_() is None
    one = np.asarray(Image.open(io.BytesIO(images[2]._repr_png_())))
    assert np.array_equal(one[:, :, 0], (images[2, 0] * 255).round().byte().numpy())
    assert [each.mode for each in images.pil()] == ["L"] * 10
    assert torch.equal(copy.deepcopy(images), images)
    torch.save(images, tmp_path / "images.pt")
    assert torch.equal(torch.load(tmp_path / "images.pt"), images)


@pytest.mark.parametrize("name", ["one.png", "one.jpg", "one.webp"])
def test_images_save_themselves(tmp_path, name):
    images = Images.of(torch.rand(2, 3, 16, 16))
    images.save(tmp_path / name)
    with Image.open(tmp_path / name) as picture:
        assert picture.size == (2 * 18, 18)
    with pytest.raises(ValueError, match="not the name of a picture"):
        images.save(tmp_path / "one.txt")
    with pytest.raises(ValueError, match="not images"):
        images[0, 0].save(tmp_path / name)
