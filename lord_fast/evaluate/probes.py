"""Leakage and informativeness: what a classifier reads from codes it was not trained on."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lord_fast.evaluate.bootstrap import interval
from lord_fast.evaluate.splits import Split, hold_out, stratified

FEWEST_OF_A_LABEL = 5
"""Images that a content label needs to be worth predicting."""
FEWEST_TO_STOP_EARLY = 1000
"""Images from which on a tenth of them says when the MLP has learnt enough."""


def probe(codes: np.ndarray, labels: np.ndarray, splits: Sequence[Split], seed: int) -> dict:
    """How well labels are read from codes, by a linear probe and by a small MLP.

    Args:
        codes: float32 [N, D].
        labels: int64 [N].
        splits: Where to train and to score; several, that score different images, make one figure.
        seed: Of the probes' start.

    Returns:
        accuracy (linear), mlp_accuracy, the 95 % interval of both over the images scored, chance
        (the share of the commonest label among the images scored), trained_on and scored_on
        (numbers of images), split (how they were chosen).
    """
    right = {
        name: np.concatenate([_right(kind, codes, labels, parts, seed) for parts in splits])
        for name, kind in (("accuracy", _linear), ("mlp_accuracy", _mlp))
    }
    scored = np.concatenate([parts.test for parts in splits])
    _, counts = np.unique(labels[scored], return_counts=True)
    return {
        **{name: float(values.mean()) for name, values in right.items()},
        **{f"{name}_interval": interval(values, seed) for name, values in right.items()},
        "chance": float(counts.max() / len(scored)),
        "trained_on": len(np.unique(np.concatenate([parts.train for parts in splits]))),
        "scored_on": len(scored),
        "split": splits[0].how,
    }


def probe_factor(
    codes: np.ndarray, labels: np.ndarray, class_ids: np.ndarray, seed: int
) -> dict | None:
    """`probe` over the images whose label is common enough; None where fewer than 2 labels are.

    Args:
        codes: float32 [N, D].
        labels: int64 [N], of one content factor.
        class_ids: int64 [N]; whole classes are held out where classes share labels.
        seed: Of the split and of the probes' start.
    """
    kept = np.isin(labels, _common(labels))
    codes, labels, class_ids = codes[kept], labels[kept], class_ids[kept]
    parts = hold_out(labels, class_ids, "classes", seed) or stratified(class_ids, seed)
    common = _common(labels[parts.train])
    train, test = (part[np.isin(labels[part], common)] for part in (parts.train, parts.test))
    if len(common) < 2 or not len(test):
        return None
    return probe(codes, labels, [Split(train, test, parts.how)], seed)


def _common(labels: np.ndarray) -> np.ndarray:
    values, counts = np.unique(labels, return_counts=True)
    return values[counts >= FEWEST_OF_A_LABEL]


def _linear(count: int, seed: int) -> ClassifierMixin:
    return LogisticRegression(max_iter=1000, random_state=seed)


def _mlp(count: int, seed: int) -> ClassifierMixin:
    """For `count` images to train on."""
    return MLPClassifier(
        (128,), alpha=1e-2, learning_rate_init=3e-3, batch_size=min(64, count), max_iter=300,
        early_stopping=count >= FEWEST_TO_STOP_EARLY, n_iter_no_change=20, random_state=seed,
    )  # fmt: skip


def _right(
    kind: Callable[[int, int], ClassifierMixin],
    codes: np.ndarray,
    labels: np.ndarray,
    parts: Split,
    seed: int,
) -> np.ndarray:
    """Which images to score the trained classifier gets right, bool [number of them]."""
    pipeline = make_pipeline(StandardScaler(), kind(len(parts.train), seed))
    with warnings.catch_warnings():  # the bound on iterations is meant to end some fits
        warnings.simplefilter("ignore", ConvergenceWarning)
        pipeline.fit(codes[parts.train], labels[parts.train])
    return pipeline.predict(codes[parts.test]) == labels[parts.test]
