"""A density of codes, fitted after training: what the published method lacks to make new images."""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold

COMPONENTS = (1, 2, 4, 8, 16, 32)
FOLDS = 5
MOST_CODES = 5000
"""Codes that a mixture is fitted to; the time of a fit grows with their number."""
FEWEST_A_COMPONENT = 10
"""Codes that a component needs in the folds it is fitted to."""

Kind = Literal["mixture", "training"]


@dataclass(frozen=True)
class Density:
    """A Gaussian mixture of codes.

    Attributes:
        mixture: Fitted to the codes divided by `scale`.
        scale: Standard deviation of all values of the codes that it was fitted to.
        log_likelihood: Mean of a held-out code, in nats, over the folds (of the scaled codes).
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
        """Such as `4 full Gaussians, -12.3 nats a held-out code`."""
        components, kind = self.mixture.n_components, self.mixture.covariance_type
        return f"{components} {kind} Gaussian{'s' if components > 1 else ''}, " + (
            f"{self.log_likelihood:.2f} nats a held-out code"
        )


def fit_density(codes: np.ndarray, seed: int) -> Density:
    """The mixture, of those tried, that gives held-out codes the highest likelihood.

    Of more than `MOST_CODES` codes as many are drawn, and the others are not looked at.

    Args:
        codes: float32 [N, dim], N at least 2.
        seed: Of the draw, the folds and the start of every fit.
    """
    if len(codes) > MOST_CODES:
        codes = codes[np.random.default_rng(seed).permutation(len(codes))[:MOST_CODES]]
    scale = float(codes.std()) or 1.0
    scaled = codes.astype(np.float64) / scale
    if len(codes) < FOLDS:  # nothing to choose by
        return Density(_fit(scaled, 1, "diag", seed), scale, float("nan"))
    folds = list(KFold(FOLDS, shuffle=True, random_state=seed).split(scaled))
    smallest = min(len(train) for train, _ in folds)
    tried = {
        (components, kind): float(
            np.mean([_fit(scaled[a], components, kind, seed).score(scaled[b]) for a, b in folds])
        )
        for components in COMPONENTS
        if components == 1 or smallest >= FEWEST_A_COMPONENT * components
        for kind in ("full", "diag")
    }
    components, kind = max(tried, key=lambda choice: tried[choice])
    best = _fit(scaled, components, kind, seed)
    return Density(best, scale, tried[components, kind])


def sample_training(codes: np.ndarray, std: float, count: int, seed: int) -> np.ndarray:
    """The baseline: training codes, drawn at random, with the noise that training added.

    Args:
        codes: float32 [N, dim].
        std: Standard deviation of the noise: content_std for contents, 0 for classes.
        count: Codes to draw.
        seed: Of the draw.

    Returns:
        float32 [count, dim].
    """
    rng = np.random.default_rng(seed)
    drawn = codes[rng.integers(len(codes), size=count)]
    return (drawn + std * rng.standard_normal(drawn.shape)).astype(np.float32)


def _fit(codes: np.ndarray, components: int, kind: str, seed: int) -> GaussianMixture:
    mixture = GaussianMixture(components, covariance_type=kind, reg_covar=1e-3, random_state=seed)
    with warnings.catch_warnings():  # a mixture that is still moving can win all the same
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(codes)
