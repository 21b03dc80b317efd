"""Tests whether content labels mean the same in every class.

For example, the files `0001.jpg` of two people may show unrelated content.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

SHUFFLES = 200
MOST_IMAGES = 3000
SIDE = 16
"""Side in pixels to which images are reduced before they are compared."""
LEAST_P = 0.01
LEAST_SIMILARITY = 0.04
"""A smaller correlation is ignored even if it is significant."""


class Images(Protocol):
    """Images by number, uint8 or float [H, W, C], such as an array [N, H, W, C]."""

    def __getitem__(self, image_id: int, /) -> np.ndarray:
        """Return an image."""
        ...


@dataclass(frozen=True)
class Shared:
    """The result of a test of content labels.

    Attributes:
        shared: Whether images of different classes with the same label resemble each other.
        similarity: Mean correlation of such images after subtracting the mean image of each class,
            minus the mean correlation with shuffled labels.
        p: Fraction of shuffles with at least this similarity. The true labels count as a shuffle.
    """

    shared: bool
    similarity: float
    p: float


def labels_are_shared(
    images: Images, class_ids: np.ndarray, labels: np.ndarray, seed: int = 0
) -> Shared | None:
    """Test on the images whether a label means the same content in every class.

    Args:
        images: The images. A random sample is used if there are many.
        class_ids: int [N].
        labels: Content label, or combination of labels, of each image, int [N].
        seed: Seed of the sample and of the shuffles.

    Returns:
        The result, or None if no label occurs in two classes.
    """
    rng = np.random.default_rng(seed)
    kept = _draw(class_ids, labels, rng)
    class_ids, labels = class_ids[kept], labels[kept]
    if len(kept) == 0:
        return None
    residuals = _residuals(np.stack([_small(images[i]) for i in kept]), class_ids)
    found = _similarity(residuals, class_ids, labels)
    shuffled = np.array(
        [
            _similarity(residuals, class_ids, _shuffle(labels, class_ids, rng))
            for _ in range(SHUFFLES)
        ]
    )
    similarity = found - float(shuffled.mean())
    p = float((1 + (shuffled >= found).sum()) / (1 + SHUFFLES))
    return Shared(p < LEAST_P and similarity >= LEAST_SIMILARITY, similarity, p)


def _draw(class_ids: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose images whose label occurs in several classes, and take all images of each label."""
    pairs = np.unique(np.stack((labels, class_ids)), axis=1)
    values, classes = np.unique(pairs[0], return_counts=True)
    common = np.isin(labels, values[classes > 1])
    counts = dict(zip(*np.unique(labels[common], return_counts=True), strict=True))
    taken, chosen = 0, []
    for value in rng.permutation(values[classes > 1]):
        if taken == 0 or taken + counts[value] <= MOST_IMAGES:
            chosen.append(value)
            taken += counts[value]
    return np.flatnonzero(np.isin(labels, chosen))[:MOST_IMAGES]


def _small(image: np.ndarray) -> np.ndarray:
    """Convert an image to grey, average it to at most `SIDE` pixels a side and flatten it."""
    grey = np.asarray(image, dtype=np.float32).mean(-1)
    step = max(1, -(-max(grey.shape) // SIDE))
    height, width = (side - side % step for side in grey.shape)
    blocks = grey[:height, :width].reshape(height // step, step, width // step, step)
    return blocks.mean((1, 3)).ravel()


def _residuals(images: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """Subtract the mean of its class from each image and normalize it to length 1."""
    _, classes = np.unique(class_ids, return_inverse=True)
    sums = np.zeros((classes.max() + 1, images.shape[1]), dtype=np.float64)
    np.add.at(sums, classes, images)
    rest = images - (sums / np.bincount(classes)[:, None])[classes]
    norms = np.linalg.norm(rest, axis=1, keepdims=True)
    return rest / np.where(norms > 1e-6, norms, np.inf)


def _similarity(residuals: np.ndarray, class_ids: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean inner product of pairs of images with one label and different classes."""
    total, pairs = _within(residuals, labels)
    same, own = _within(residuals, labels.astype(np.int64) * (class_ids.max() + 1) + class_ids)
    return (total - same) / max(1.0, pairs - own)


def _within(residuals: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Return the sum of inner products over all ordered pairs within groups, and their number."""
    _, numbers, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(numbers, kind="stable")
    sums = np.add.reduceat(residuals[order], np.cumsum(counts) - counts, axis=0)
    return float(np.square(sums).sum()), float(np.square(counts.astype(np.float64)).sum())


def _shuffle(labels: np.ndarray, class_ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Permute the labels within each class."""
    found = np.empty_like(labels)
    order = np.argsort(class_ids, kind="stable")
    found[order] = labels[np.lexsort((rng.random(len(labels)), class_ids))]
    return found
