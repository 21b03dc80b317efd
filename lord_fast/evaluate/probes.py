"""Leakage and informativeness: what a classifier reads from codes it was not trained on."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lord_fast.evaluate.bootstrap import intervals
from lord_fast.evaluate.splits import Split, hold_out, stratified

FEWEST_OF_A_LABEL = 5
"""Images that a content label needs to be worth predicting."""


def probe(
    codes: np.ndarray,
    labels: np.ndarray,
    splits: Sequence[Split],
    seed: int,
    clusters: Sequence[np.ndarray] = (),
) -> dict:
    """How well labels are read from codes, by a linear probe, a small MLP and nearest centroids.

    Args:
        codes: float32 [N, D].
        labels: int64 [N].
        splits: Where to train and to score; several, that score different images, make one figure.
        seed: Of the probes' start.
        clusters: What the intervals are drawn over, each int64 [N], see `intervals`.

    Returns:
        accuracy (linear), mlp_accuracy, centroid_accuracy, the 95 % interval of each over the
        images scored, chance (the share of the commonest label among the images scored),
        trained_on and scored_on (numbers of images), split (how they were chosen).
    """
    return summarize(read(codes, labels, splits, seed), labels, splits, seed, clusters)


def read(
    codes: np.ndarray, labels: np.ndarray, splits: Sequence[Split], seed: int
) -> dict[str, np.ndarray]:
    """Which of the images to score each probe gets right, bool [number of them]."""
    return {
        name: np.concatenate([_right(kind, codes, labels, parts, seed) for parts in splits])
        for name, kind in PROBES.items()
    }


def summarize(
    right: dict[str, np.ndarray],
    labels: np.ndarray,
    splits: Sequence[Split],
    seed: int,
    clusters: Sequence[np.ndarray],
) -> dict:
    """What `probe` returns, of what `read` returns."""
    scored = np.concatenate([parts.test for parts in splits])
    _, counts = np.unique(labels[scored], return_counts=True)
    ends = intervals(np.stack(list(right.values()), 1), seed, [c[scored] for c in clusters])
    return {
        **{name: float(values.mean()) for name, values in right.items()},
        **{f"{name}_interval": found.tolist() for name, found in zip(right, ends, strict=True)},
        "chance": float(counts.max() / len(scored)),
        "trained_on": len(np.unique(np.concatenate([parts.train for parts in splits]))),
        "scored_on": len(scored),
        "split": splits[0].how,
    }


def factor_split(
    labels: np.ndarray, class_ids: np.ndarray, seed: int
) -> tuple[np.ndarray, Split] | None:
    """The images whose label is common enough to be predicted, and their split.

    Args:
        labels: int64 [N], of one content factor.
        class_ids: int64 [N]; whole classes are held out where classes share labels.
        seed: Of the split.

    Returns:
        bool [N] and the split of those images; None where fewer than 2 labels are common.
    """
    kept = np.isin(labels, _common(labels))
    labels, class_ids = labels[kept], class_ids[kept]
    if not len(labels):
        return None
    parts = hold_out(labels, class_ids, "classes", seed) or stratified(class_ids, seed)
    common = _common(labels[parts.train])
    train, test = (part[np.isin(labels[part], common)] for part in (parts.train, parts.test))
    if len(common) < 2 or not len(test):
        return None
    return kept, Split(train, test, parts.how)


def probe_factor(
    codes: np.ndarray, labels: np.ndarray, class_ids: np.ndarray, seed: int
) -> dict | None:
    """`probe` of one content factor; None where there is too little of it (see `factor_split`).

    Args:
        codes: float32 [N, D].
        labels: int64 [N].
        class_ids: int64 [N].
        seed: Of the split and of the probes' start.
    """
    found = factor_split(labels, class_ids, seed)
    if found is None:
        return None
    kept, split = found
    clusters = (class_ids[kept], labels[kept])
    return probe(codes[kept], labels[kept], [split], seed, clusters)


def _common(labels: np.ndarray) -> np.ndarray:
    values, counts = np.unique(labels, return_counts=True)
    return values[counts >= FEWEST_OF_A_LABEL]


def _linear(seed: int) -> ClassifierMixin:
    return LogisticRegression(max_iter=1000, random_state=seed)


def _mlp(seed: int) -> ClassifierMixin:
    """Regularized by its decay alone.

    Early stopping would hold single images out, whose contents the others tell it; it stops before
    a leak is learnt.
    """
    return MLPClassifier((128,), solver="lbfgs", alpha=1.0, max_iter=100, random_state=seed)


def _centroid(seed: int) -> ClassifierMixin:
    return NearestCentroid()


PROBES: dict[str, Callable[[int], ClassifierMixin]] = {
    "accuracy": _linear,
    "mlp_accuracy": _mlp,
    "centroid_accuracy": _centroid,
}
"""Name of the figure -> the probe, from a seed."""


def _right(
    kind: Callable[[int], ClassifierMixin],
    codes: np.ndarray,
    labels: np.ndarray,
    parts: Split,
    seed: int,
) -> np.ndarray:
    """Which images to score the trained classifier gets right, bool [number of them]."""
    pipeline = make_pipeline(StandardScaler(), kind(seed))
    # The matrices are small: several threads wait for each other more than they compute.
    with warnings.catch_warnings(), threadpool_limits(1):
        # The bound on iterations is meant to end some fits.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # Codes may be the same for a whole class.
        warnings.filterwarnings("ignore", module="sklearn.neighbors._nearest_centroid")
        pipeline.fit(codes[parts.train], labels[parts.train])
    return pipeline.predict(codes[parts.test]) == labels[parts.test]
