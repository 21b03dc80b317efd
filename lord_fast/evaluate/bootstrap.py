"""Confidence intervals, which tell how much a metric varies with other classes and contents."""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 1000


def intervals(values: np.ndarray, seed: int, clusters: Sequence[np.ndarray] = ()) -> np.ndarray:
    """Compute 95 % bootstrap intervals of means, drawing whole clusters with replacement.

    Images of one class resemble each other, and so do images of one content. An interval over
    single images would therefore be too narrow. With two kinds of clusters (classes and contents)
    both are drawn, and the weight of an image is the product of the numbers of times that its class
    and its content were drawn (Owen, "The pigeonhole bootstrap", 2007). Without clusters the
    images themselves are drawn (Efron, 1979).

    Args:
        values: Several values of each image or pair, [N, M].
        seed: Seed of the random draws.
        clusters: One array for each kind of cluster, with the cluster of each image, int [N].

    Returns:
        Lower and upper end of each interval, float64 [M, 2].
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
    """Compute the interval of a single mean from values [N]. See `intervals`."""
    return intervals(np.asarray(values)[:, None], seed, clusters)[0].tolist()


def _times_drawn(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return how often each of `count` clusters was drawn, int64 [RESAMPLES, count]."""
    drawn = rng.integers(count, size=(RESAMPLES, count)) + count * np.arange(RESAMPLES)[:, None]
    return np.bincount(drawn.ravel(), minlength=RESAMPLES * count).reshape(RESAMPLES, count)
