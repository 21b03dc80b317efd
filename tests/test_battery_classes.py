"""Stores of many classes: what is drawn stays small, and stays what it was for few classes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lord_fast.evaluate.draw import MAX_CLASSES, MAX_IMAGES, draw_images
from lord_fast.evaluate.new_classes import draw_targets


def store_of(classes: int, each: int) -> SimpleNamespace:
    """The labels of a store; every class has the same contents, in another order each."""
    rng = np.random.default_rng(0)
    order = rng.permutation(classes * each)
    return SimpleNamespace(
        path="store",
        num_images=classes * each,
        num_classes=classes,
        class_names=[str(i) for i in range(classes)],
        class_ids=torch.from_numpy(order // each),
        content_ids=torch.from_numpy(order % each)[:, None],
        factors={"content": [str(i) for i in range(each)]},
    )


@pytest.mark.parametrize(("classes", "each"), [(2000, 2), (1700, 3), (20_000, 3), (600, 50)])
def test_few_classes_are_drawn_of_many(classes, each):
    store = store_of(classes, each)
    ids = draw_images(store, seed=0)
    drawn, counts = store.class_ids[ids].unique(return_counts=True)
    assert len(drawn) == min(MAX_CLASSES, MAX_IMAGES // each)
    assert set(counts.tolist()) == {each}
    assert drawn.max() > classes // 2


def test_all_images_are_drawn_of_few_classes():
    assert len(draw_images(store_of(500, 10), seed=0)) == 5000


def test_shots_of_new_classes_are_those_of_a_loop_over_the_classes():
    held_out, trained = store_of(30, 7), store_of(40, 7)
    found = draw_targets(held_out, trained, shots=3, seed=5)
    rng = np.random.default_rng(5)
    members = rng.permutation((held_out.class_ids == 0).nonzero()[:, 0].numpy())
    assert found.shots[0].tolist() == members[:3].tolist()
    assert len(found.shots) == 30
    for class_id, shots in enumerate(found.shots):
        assert (held_out.class_ids[shots] == class_id).all()
    assert (held_out.class_ids[found.target] == found.class_).all()
