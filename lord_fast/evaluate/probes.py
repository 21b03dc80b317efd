"""Leakage and informativeness: what a classifier reads from codes it was not trained on."""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lord_fast.evaluate.bootstrap import interval

TEST_SHARE = 1 / 3
FEWEST_OF_A_LABEL = 5
"""Images that a content label needs to be worth predicting."""


FEWEST_TO_STOP_EARLY = 1000
"""Images from which on a tenth of them says when the MLP has learnt enough."""


@dataclass(frozen=True)
class Split:
    """Positions that probes are trained on and scored on, stratified by class.

    Attributes:
        train: int64 positions.
        test: int64 positions.
    """

    train: np.ndarray
    test: np.ndarray


def split(class_ids: np.ndarray, seed: int) -> Split:
    """A third of each class's images to score on, and at least one of each.

    Args:
        class_ids: int64 [N], every class at least twice.
        seed: Of the draw.
    """
    classes = len(np.unique(class_ids))
    test = max(round(len(class_ids) * TEST_SHARE), classes)
    parts = train_test_split(
        np.arange(len(class_ids)), test_size=test, stratify=class_ids, random_state=seed
    )
    return Split(*parts)


def probe(codes: np.ndarray, labels: np.ndarray, parts: Split, seed: int) -> dict:
    """How well labels are read from codes, by a linear probe and by a small MLP.

    Args:
        codes: float32 [N, D].
        labels: int64 [N].
        parts: Where to train and to score.
        seed: Of the probes' start.

    Returns:
        accuracy (linear), mlp_accuracy, the 95 % interval of both over the images scored, chance
        (the share of the commonest label among the images scored), trained_on and scored_on
        (numbers of images).
    """
    linear = LogisticRegression(max_iter=1000, random_state=seed)
    mlp = MLPClassifier(
        (128,), alpha=1e-2, learning_rate_init=3e-3, batch_size=min(64, len(parts.train)),
        max_iter=300, early_stopping=len(parts.train) >= FEWEST_TO_STOP_EARLY,
        n_iter_no_change=20, random_state=seed,
    )  # fmt: skip
    _, counts = np.unique(labels[parts.test], return_counts=True)
    right = {
        "accuracy": _right(linear, codes, labels, parts),
        "mlp_accuracy": _right(mlp, codes, labels, parts),
    }
    return {
        **{name: float(values.mean()) for name, values in right.items()},
        **{f"{name}_interval": interval(values, seed) for name, values in right.items()},
        "chance": float(counts.max() / len(parts.test)),
        "trained_on": len(parts.train),
        "scored_on": len(parts.test),
    }


def probe_factor(codes: np.ndarray, labels: np.ndarray, parts: Split, seed: int) -> dict | None:
    """`probe` over the images whose label is common enough; None where fewer than 2 labels are.

    Args:
        codes: float32 [N, D].
        labels: int64 [N], of one content factor.
        parts: Where to train and to score.
        seed: Of the probes' start.
    """
    values, counts = np.unique(labels[parts.train], return_counts=True)
    common = values[counts >= FEWEST_OF_A_LABEL]
    if len(common) < 2:
        return None
    kept = Split(*(part[np.isin(labels[part], common)] for part in (parts.train, parts.test)))
    return probe(codes, labels, kept, seed) if len(kept.test) else None


def _right(
    classifier: ClassifierMixin, codes: np.ndarray, labels: np.ndarray, parts: Split
) -> np.ndarray:
    """Which images to score the trained classifier gets right, bool [number of them]."""
    pipeline = make_pipeline(StandardScaler(), classifier)
    with warnings.catch_warnings():  # the bound on iterations is meant to end some fits
        warnings.simplefilter("ignore", ConvergenceWarning)
        pipeline.fit(codes[parts.train], labels[parts.train])
    return pipeline.predict(codes[parts.test]) == labels[parts.test]
