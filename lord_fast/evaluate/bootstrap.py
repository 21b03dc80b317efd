"""How far a figure would move with other classes and other contents of the same kind."""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 1000


def intervals(values: np.ndarray, seed: int, clusters: Sequence[np.ndarray] = ()) -> np.ndarray:
    """The central 95 % of the means over `RESAMPLES` draws of whole clusters with replacement.

    Images of one class resemble each other, and so do images of one content. An interval over
    images alone is therefore too narrow. With two kinds of clusters (classes and contents) both are
    drawn, and an image counts as often as its class times its content was drawn (Owen, "The
    pigeonhole bootstrap", 2007). With no clusters the images themselves are drawn (Efron, 1979).

    Args:
        values: Several figures of each image (or pair), [N, M].
        seed: Of the draws.
        clusters: One array for each kind of cluster: the number of each image's cluster, int [N].

    Returns:
        Lower and upper end of each figure, float64 [M, 2].
    """
    values = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    weights = np.ones((RESAMPLES, len(values)))
    for cluster in clusters or [np.arange(len(values))]:
        _, numbers = np.unique(cluster, return_inverse=True)
        weights *= _times_drawn(rng, int(numbers.max()) + 1)[:, numbers]
    total = weights.sum(1)
    drawn = total > 0
    means = (weights[drawn] @ values) / total[drawn, None]
    return np.percentile(means, (2.5, 97.5), axis=0).T


def interval(values: np.ndarray, seed: int, clusters: Sequence[np.ndarray] = ()) -> list[float]:
    """`intervals` of one figure, [N]: its lower and upper end."""
    return intervals(np.asarray(values)[:, None], seed, clusters)[0].tolist()


def _times_drawn(rng: np.random.Generator, count: int) -> np.ndarray:
    """How often each of `count` clusters is among `count` draws, int64 [RESAMPLES, count]."""
    drawn = rng.integers(count, size=(RESAMPLES, count)) + count * np.arange(RESAMPLES)[:, None]
    return np.bincount(drawn.ravel(), minlength=RESAMPLES * count).reshape(RESAMPLES, count)
