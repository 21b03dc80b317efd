"""Checks the bound on the information of content codes."""

import numpy as np
import pytest

from lord_fast.evaluate.rate import content_rate

CLASSES = np.repeat(np.arange(4), 500)
ONE = np.zeros(2000, dtype=np.int64)


def test_bits_are_the_capacity_of_gaussian_channels():
    rng = np.random.default_rng(0)
    spread = np.array([3**0.5, 15**0.5, 0.0])  # 1 + spread^2 is 4, 16 and 1
    codes = 0.5 * spread * rng.standard_normal((2000, 3)) + 7
    found = content_rate(codes.astype(np.float32), CLASSES, ONE, std=0.5)
    assert found["bits"] == pytest.approx(1 + 2 + 0, abs=0.1)


def test_needed_bits_are_those_of_labels_or_of_the_images_of_a_class():
    codes = np.zeros((2000, 3), np.float32)
    labelled = content_rate(codes, CLASSES, np.arange(2000) % 8, std=1.0)
    assert (labelled["needed"], labelled["what"]) == (pytest.approx(3), "content labels")
    plain = content_rate(codes, CLASSES, ONE, std=1.0)
    assert (plain["needed"], plain["what"]) == (pytest.approx(np.log2(500)), "images of a class")


def test_without_noise_there_is_no_bound():
    assert content_rate(np.ones((2000, 3), np.float32), CLASSES, ONE, std=0) is None
