"""Draws the images to evaluate if a store has too many."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lord_fast.data.store import ImageStore
from lord_fast.evaluate.labels import combinations

MAX_IMAGES = 5000
"""Largest number of images for reconstruction and probes."""
MAX_CLASSES = 500
"""Largest number of classes. A probe's time grows with images times classes, and 1,700 classes of
three images each take more than ten minutes."""
ENOUGH_OF_A_CLASS = 50
"""Number of images from which a probe can learn a class. Classes are dropped before a class gets
fewer."""


def draw_images(
    store: ImageStore, seed: int, most: int | None = None, among: np.ndarray | None = None
) -> Tensor:
    """Draw at most `most` images of a store. See `draw_rows`.

    Args:
        store: The images.
        seed: Seed of the random draws.
        most: Largest number of images. Defaults to `MAX_IMAGES`.
        among: Classes to draw from, int64. Defaults to all.

    Returns:
        Image ids of at least two classes, int64, ascending.
    """
    classes, contents = store.class_ids.numpy(), lambda: combinations(store)[0]
    return torch.from_numpy(draw_rows(classes, store.num_classes, contents, seed, most, among))


def draw_rows(
    classes: np.ndarray,
    num_classes: int,
    contents: Callable[[], np.ndarray],
    seed: int,
    most: int | None = None,
    among: np.ndarray | None = None,
) -> np.ndarray:
    """Draw at most `most` images, with enough images of each drawn class to learn from.

    Large classes are reduced to the same contents, so that classes still share contents. If
    `ENOUGH_OF_A_CLASS` images of each class are too many, fewer classes are drawn, and never more
    than `MAX_CLASSES`.

    Args:
        classes: Class of each image, int64 [N].
        num_classes: Number of classes.
        contents: Returns the content of each image, int64 [N]. It is called if images are left out.
        seed: Seed of the random draws.
        most: Largest number of images. Defaults to `MAX_IMAGES`.
        among: Classes to draw from, int64. Defaults to all.

    Returns:
        Positions of images of at least two classes, int64, ascending.
    """
    most = MAX_IMAGES if most is None else most
    order = np.random.default_rng(seed).permutation(num_classes)
    if among is not None:
        order = order[np.isin(order, among)]
    counts = np.bincount(classes, minlength=num_classes)
    if counts[order].sum() <= most and len(order) <= MAX_CLASSES:
        return np.flatnonzero(np.isin(classes, order))
    each = max(min(ENOUGH_OF_A_CLASS, most // 2), most // len(order))
    place = _places(classes, contents(), np.random.default_rng(seed))
    sizes = np.minimum(counts, each)[order]
    fit = int((sizes.cumsum() <= most).sum())
    wanted = order[: max(2, min(fit, MAX_CLASSES))]
    return np.flatnonzero(np.isin(classes, wanted) & (place < each))


def _places(classes: np.ndarray, contents: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Number the images of each class, int64 [N], ordering contents alike in all classes."""
    rank = rng.permutation(int(contents.max()) + 1)[contents]
    order = np.lexsort((rng.random(len(classes)), rank, classes))
    counts = np.bincount(classes)
    place = np.empty(len(classes), dtype=np.int64)
    place[order] = np.arange(len(classes)) - np.repeat(np.cumsum(counts) - counts, counts)
    return place
