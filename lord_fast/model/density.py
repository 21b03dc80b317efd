"""A density of codes that is fitted after training.

The published method has no density to draw codes of new images from.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lord_fast.progress import Parts, Progress, silent

COMPONENTS = (1, 2, 4, 8, 16, 32)
FOLDS = 5
MOST_CODES = 5000
"""Maximum number of codes that a mixture is fitted to, which bounds the time of a fit."""
FEWEST_A_COMPONENT = 10
"""Minimum number of training codes per component in every fold."""

Kind = Literal["mixture", "training"]


@dataclass(frozen=True)
class Density:
    """A Gaussian mixture of codes.

    Attributes:
        mixture: The mixture, fitted to the codes divided by `scale`.
        scale: Standard deviation over all values of the codes that it was fitted to.
        log_likelihood: Mean log-likelihood of a held-out scaled code over the folds, in nats.
    """

    mixture: GaussianMixture
    scale: float
    log_likelihood: float

    def sample(self, count: int, seed: int) -> np.ndarray:
        """Draw codes, float32 [count, dim]."""
        self.mixture.set_params(random_state=seed)
        codes, _ = self.mixture.sample(count)
        rng = np.random.default_rng(seed)
        return (rng.permutation(codes) * self.scale).astype(np.float32)

    def describe(self) -> str:
        """A summary such as `4 full Gaussians, -12.30 nats a held-out code`."""
        components, kind = self.mixture.n_components, self.mixture.covariance_type
        return f"{components} {kind} Gaussian{'s' if components > 1 else ''}, " + (
            f"{self.log_likelihood:.2f} nats a held-out code"
        )


@threadpool_limits.wrap(limits=1)  # threads would only wait for each other
def fit_density(
    codes: np.ndarray, seed: int, groups: np.ndarray | None = None, progress: Progress = silent
) -> Density:
    """Fit several mixtures and return the one with the highest held-out likelihood.

    If there are more than `MOST_CODES` codes, a random subset of that size is used.

    Args:
        codes: float32 [N, dim], N at least 2.
        seed: Seed of the subset, the folds and every fit.
        groups: Group of each code, such as its content, int [N]. The codes of a group are held out
            together. Otherwise similar codes would be in both parts of a fold, and too many
            Gaussians would be chosen.
        progress: Called with the number of tried mixtures and of all mixtures.
    """
    if groups is None:
        groups = np.arange(len(codes))
    if len(codes) > MOST_CODES:
        drawn = np.random.default_rng(seed).permutation(len(codes))[:MOST_CODES]
        codes, groups = codes[drawn], groups[drawn]
    scale = float(codes.std()) or 1.0
    scaled = codes.astype(np.float64) / scale
    if len(codes) < FOLDS:  # too few codes for a held-out likelihood
        return Density(_fit(scaled, 1, "diag", seed), scale, float("nan"))
    if len(np.unique(groups)) < FOLDS:
        groups = np.arange(len(codes))
    values, numbers = np.unique(groups, return_inverse=True)
    folds = [
        tuple(np.flatnonzero(np.isin(numbers, part) == scored) for scored in (False, True))
        for _, part in KFold(FOLDS, shuffle=True, random_state=seed).split(values)
    ]
    smallest = min(len(train) for train, _ in folds)
    choices = [
        (components, kind)
        for components in COMPONENTS
        if components == 1 or smallest >= FEWEST_A_COMPONENT * components
        for kind in ("full", "diag")
    ]
    part = Parts(progress, len(choices))

    def likelihood(components: int, kind: str) -> float:
        return float(
            np.mean([_fit(scaled[a], components, kind, seed).score(scaled[b]) for a, b in folds])
        )

    tried = {choice: part(likelihood(*choice)) for choice in choices}
    components, kind = max(tried, key=lambda choice: tried[choice])
    best = _fit(scaled, components, kind, seed)
    return Density(best, scale, tried[components, kind])


def sample_training(codes: np.ndarray, std: float, count: int, seed: int) -> np.ndarray:
    """Draw training codes at random and add the noise of training. This is the baseline.

    Args:
        codes: float32 [N, dim].
        std: Standard deviation of the noise, which is content_std for contents and 0 for classes.
        count: Number of codes to draw.
        seed: Seed of the draw and of the noise.

    Returns:
        float32 [count, dim].
    """
    rng = np.random.default_rng(seed)
    drawn = codes[rng.integers(len(codes), size=count)]
    return (drawn + std * rng.standard_normal(drawn.shape)).astype(np.float32)


def _fit(codes: np.ndarray, components: int, kind: str, seed: int) -> GaussianMixture:
    mixture = GaussianMixture(components, covariance_type=kind, reg_covar=1e-3, random_state=seed)
    with warnings.catch_warnings():  # a mixture that has not converged may still be the best one
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(codes)
