"""Which images are measured, where a store has more than can be."""

import numpy as np
import torch
from torch import Tensor

from lord_fast.data.store import ImageStore
from lord_fast.evaluate.labels import combinations

MAX_IMAGES = 5000
"""Images that reconstruction and probes look at."""
MAX_CLASSES = 500
"""Classes that are drawn: the probes' time grows with images times classes, and 1,700 classes of
three images each take more than ten minutes."""
ENOUGH_OF_A_CLASS = 50
"""Images of a class that a probe needs to learn it; fewer classes are taken before fewer images."""


def draw_images(
    store: ImageStore, seed: int, most: int | None = None, among: np.ndarray | None = None
) -> Tensor:
    """All images, or as many as `most` holds, so that each class drawn has enough to learn from.

    More than `MAX_CLASSES` classes are never drawn.

    Large classes are cut: each keeps the same contents, so that classes still share them. Where
    even `ENOUGH_OF_A_CLASS` images of each class are too many, fewer classes are drawn.

    Args:
        store: The images.
        seed: Of every draw.
        most: Images; default: `MAX_IMAGES`.
        among: Classes to draw from, int64; default: all.

    Returns:
        Image ids in order, int64; at least two classes.
    """
    most = MAX_IMAGES if most is None else most
    classes = store.class_ids.numpy()
    order = np.random.default_rng(seed).permutation(store.num_classes)
    if among is not None:
        order = order[np.isin(order, among)]
    counts = np.bincount(classes, minlength=store.num_classes)
    if counts[order].sum() <= most and len(order) <= MAX_CLASSES:
        return torch.from_numpy(np.flatnonzero(np.isin(classes, order)))
    each = max(min(ENOUGH_OF_A_CLASS, most // 2), most // len(order))
    place = _places(classes, combinations(store)[0], np.random.default_rng(seed))
    sizes = np.minimum(counts, each)[order]
    fit = int((sizes.cumsum() <= most).sum())
    wanted = order[: max(2, min(fit, MAX_CLASSES))]
    return torch.from_numpy(np.flatnonzero(np.isin(classes, wanted) & (place < each)))


def _places(classes: np.ndarray, contents: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each image's place in its class, int64 [N], where all classes order contents alike."""
    rank = rng.permutation(int(contents.max()) + 1)[contents]
    order = np.lexsort((rng.random(len(classes)), rank, classes))
    counts = np.bincount(classes)
    place = np.empty(len(classes), dtype=np.int64)
    place[order] = np.arange(len(classes)) - np.repeat(np.cumsum(counts) - counts, counts)
    return place
