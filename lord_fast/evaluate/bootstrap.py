"""How far a figure would move with other images of the same kind."""

import numpy as np

RESAMPLES = 1000


def interval(values: np.ndarray, seed: int) -> list[float]:
    """The central 95 % of the means of `RESAMPLES` draws with replacement (Efron, 1979).

    Args:
        values: One figure for each image (or pair), [N].
        seed: Of the draws.

    Returns:
        Lower and upper end.
    """
    rng = np.random.default_rng(seed)
    values = np.asarray(values, dtype=np.float64)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    return [float(end) for end in np.percentile(means, (2.5, 97.5))]
