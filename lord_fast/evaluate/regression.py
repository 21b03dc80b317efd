"""Measures how well numeric content labels such as angles are predicted from codes."""

import warnings
from collections.abc import Mapping

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lord_fast.evaluate.bootstrap import interval
from lord_fast.evaluate.splits import hold_out, stratified

FEWEST_VALUES = 3
"""Smallest number of different values for which a label is predicted as a number."""
STRATA = 5


def periods(circular: tuple[str, ...]) -> dict[str, float]:
    """Parse the values of --circular, such as `angle=360`.

    Returns:
        The period of each circular factor by name.

    Raises:
        ValueError: A value has no name or no positive period.
    """
    found = {}
    for value in circular:
        name, _, period = value.rpartition("=")
        try:
            found[name] = float(period)
        except ValueError:
            found[name] = 0.0
        if not name or not 0 < found[name] < np.inf:
            raise ValueError(f"--circular {value}: must be a factor with its period: angle=360")
    return found


def numeric(labels: np.ndarray) -> np.ndarray | None:
    """Read labels as numbers, float64 [N], or return None if they are not numbers."""
    try:
        found = labels.astype(np.float64)
    except ValueError:
        return None
    return found if np.isfinite(found).all() else None


def check_circular(numbers: Mapping[str, np.ndarray], circular: Mapping[str, float]) -> None:
    """Check that every factor of --circular has numbers.

    Raises:
        ValueError: A factor does not exist or is not numeric.
    """
    for name in circular:
        if name not in numbers:
            known = ", ".join(numbers) or "none"
            raise ValueError(f"--circular {name}: no numeric content factor; there are: {known}")


def regress(
    codes: np.ndarray, values: np.ndarray, classes: np.ndarray, seed: int, period: float | None
) -> dict | None:
    """Predict numbers from codes by a linear and by a nonlinear regression.

    The regressions are a ridge regression and an MLP with one hidden layer of 128. Classes are held
    out if they share numbers. A circular number is predicted as its sine and cosine.

    Args:
        codes: float [N, D].
        values: float64 [N].
        classes: int64 [N].
        seed: Seed of the split and of the MLP.
        period: Period of a circular number in its own unit, or None.

    Returns:
        `r2` and `mlp_r2` on scored images (of sine and cosine for circular numbers), the mean
        absolute errors `error` and `mlp_error` in the unit of the values with 95 % intervals,
        `chance_error` of the best constant, `period` and how the images were split. None if there
        are too few values.
    """
    if len(np.unique(values)) < FEWEST_VALUES:
        return None
    edges = np.quantile(values, np.linspace(0, 1, STRATA + 1)[1:-1])
    split = hold_out(np.digitize(values, edges), classes, "classes", seed)
    split = split or stratified(classes, seed)
    if not len(split.test):
        return None
    targets = _on_circle(values, period)
    fitted = targets[split.train]
    centre, scale = fitted.mean(0), max(float(fitted.std()), 1e-12)
    clusters = [classes[split.test], np.unique(values, return_inverse=True)[1][split.test]]
    found: dict = {"period": period}
    for name, model in (
        ("", Ridge()),
        (
            "mlp_",
            MLPRegressor(
                hidden_layer_sizes=(128,),
                solver="lbfgs",
                alpha=1.0,
                max_iter=100,
                random_state=seed,
            ),
        ),
    ):
        pipeline = make_pipeline(StandardScaler(), model)
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore", ConvergenceWarning)  # It may reach the limit of steps.
            pipeline.fit(codes[split.train], ((fitted - centre) / scale).squeeze())
        made = pipeline.predict(codes[split.test]).reshape(-1, targets.shape[1]) * scale + centre
        r2 = r2_score(targets[split.test], made, multioutput="variance_weighted")
        errors = _errors(made, values[split.test], period)
        found[f"{name}r2"] = float(r2)
        found[f"{name}error"] = float(errors.mean())
        found[f"{name}error_interval"] = interval(errors, seed, clusters)
    constant = centre if period else np.median(fitted, axis=0)
    chance = _errors(np.tile(constant, (len(split.test), 1)), values[split.test], period)
    return {
        **found,
        "chance_error": float(chance.mean()),
        "trained_on": len(split.train),
        "scored_on": len(split.test),
        "split": split.how,
    }


def _on_circle(values: np.ndarray, period: float | None) -> np.ndarray:
    """Return what is predicted, float64 [N, 1], or sine and cosine [N, 2] of circular values."""
    if period is None:
        return values[:, None]
    angles = 2 * np.pi * values / period
    return np.stack((np.sin(angles), np.cos(angles)), axis=1)


def _errors(made: np.ndarray, values: np.ndarray, period: float | None) -> np.ndarray:
    """Return the absolute errors in the unit of the values, along the circle if there is one."""
    if period is None:
        return np.abs(made[:, 0] - values)
    angles = np.arctan2(made[:, 0], made[:, 1]) * period / (2 * np.pi)
    return np.abs((angles - values + period / 2) % period - period / 2)
