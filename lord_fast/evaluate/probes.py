"""Probes, which are classifiers that predict labels from codes.

They are scored on codes that they were not trained on.
"""

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
"""Smallest number of images of a content label that is predicted."""


def probe(
    codes: np.ndarray,
    labels: np.ndarray,
    splits: Sequence[Split],
    seed: int,
    clusters: Sequence[np.ndarray] = (),
) -> dict:
    """Measure how well a linear probe, a small MLP and nearest centroids predict labels from codes.

    Args:
        codes: float32 [N, D].
        labels: int64 [N].
        splits: Images to train on and to score on. The scores of several splits are pooled, and
            each split must score different images.
        seed: Seed of the probes' initialization.
        clusters: Clusters of the intervals, each int64 [N], see `intervals`.

    Returns:
        The accuracies accuracy (linear), mlp_accuracy and centroid_accuracy with their 95 %
        intervals, chance (the fraction of the most common label among the scored images), the
        numbers of images trained_on and scored_on, and split (how the images were chosen).
    """
    return summarize(read(codes, labels, splits, seed), labels, splits, seed, clusters)


def read(
    codes: np.ndarray,
    labels: np.ndarray,
    splits: Sequence[Split],
    seed: int,
    groups: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Return which of the scored images each probe predicts correctly, bool [scored images].

    Args:
        codes: float32 [N, D].
        labels: int64 [N].
        splits: Images to train on and to score on.
        seed: Seed of the probes' initialization.
        groups: What the codes may reveal, int64 [N]. The nearest centroids then see what remains of
            the codes without it, see `without_groups`.
    """
    rest = codes if groups is None else without_groups(codes, labels, groups)
    return {
        name: np.concatenate([
            _right(kind, rest if name == CENTROID else codes, labels, parts, seed)
            for parts in splits
        ])
        for name, kind in PROBES.items()
    }  # fmt: skip


def without_groups(codes: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Subtract the mean code of each group.

    Codes vary much more between contents than a small leak moves them, so a probe of few images
    finds the leak only in what remains. The codes of a group with a single label stay as they are
    but for the mean of all codes, because its mean would hold the label.

    Args:
        codes: float32 [N, D].
        labels: int64 [N].
        groups: int64 [N].
    """
    pairs = np.unique(np.stack((groups, labels)), axis=1)
    values, numbers = np.unique(pairs[0], return_counts=True)
    mixed = np.isin(groups, values[numbers > 1])
    _, of = np.unique(np.where(mixed, groups, values.max() + 1), return_inverse=True)
    sums = np.zeros((of.max() + 1, codes.shape[1]))
    np.add.at(sums, of, codes)
    means = sums / np.bincount(of)[:, None]
    if not mixed.all():
        means[-1] = codes.mean(0)
    return (codes - means[of]).astype(codes.dtype)


def summarize(
    right: dict[str, np.ndarray],
    labels: np.ndarray,
    splits: Sequence[Split],
    seed: int,
    clusters: Sequence[np.ndarray],
) -> dict:
    """Compute the result of `probe` from the result of `read`."""
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
    """Select the images whose label is common enough to be predicted, and split them.

    Args:
        labels: Labels of one content factor, int64 [N].
        class_ids: int64 [N]. Whole classes are held out if classes share labels.
        seed: Seed of the split.

    Returns:
        A mask of the selected images, bool [N], and their split. None if fewer than 2 labels are
        common enough, or if only one of them is left to be scored.
    """
    kept = np.isin(labels, _common(labels))
    labels, class_ids = labels[kept], class_ids[kept]
    if not len(labels):
        return None
    parts = hold_out(labels, class_ids, "classes", seed) or stratified(class_ids, seed)
    common = _common(labels[parts.train])
    train, test = (part[np.isin(labels[part], common)] for part in (parts.train, parts.test))
    if len(common) < 2 or len(np.unique(labels[test])) < 2:
        return None
    return kept, Split(train, test, parts.how)


def probe_factor(
    codes: np.ndarray, labels: np.ndarray, class_ids: np.ndarray, seed: int
) -> dict | None:
    """Probe one content factor. The result is None if it has too few images (see `factor_split`).

    Args:
        codes: float32 [N, D].
        labels: int64 [N].
        class_ids: int64 [N].
        seed: Seed of the split and of the probes' initialization.
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
    """Create an MLP that is regularized by weight decay and not by early stopping.

    Early stopping validates on single images whose contents are also in the training part, so it
    would stop before the MLP learns a leak.
    """
    return MLPClassifier((128,), solver="lbfgs", alpha=1.0, max_iter=100, random_state=seed)


def _centroid(seed: int) -> ClassifierMixin:
    return NearestCentroid()


CENTROID = "centroid_accuracy"
PROBES: dict[str, Callable[[int], ClassifierMixin]] = {
    "accuracy": _linear,
    "mlp_accuracy": _mlp,
    CENTROID: _centroid,
}
"""Maps the name of an accuracy to a function that creates the probe from a seed."""


def _right(
    kind: Callable[[int], ClassifierMixin],
    codes: np.ndarray,
    labels: np.ndarray,
    parts: Split,
    seed: int,
) -> np.ndarray:
    """Train a classifier and return which images it predicts correctly, bool [scored images]."""
    learnt, given = codes[parts.train], labels[parts.train]
    if (learnt == learnt[0]).all():  # Nearest centroids would refuse it.
        return labels[parts.test] == np.bincount(given).argmax()
    pipeline = make_pipeline(StandardScaler(), kind(seed))
    # The matrices are so small that several threads would be slower.
    with warnings.catch_warnings(), threadpool_limits(1):
        # Some fits are expected to reach the limit of iterations.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # All codes of a class may be equal.
        warnings.filterwarnings("ignore", module="sklearn.neighbors._nearest_centroid")
        pipeline.fit(learnt, given)
    return pipeline.predict(codes[parts.test]) == labels[parts.test]
