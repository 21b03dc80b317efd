"""Measures DCI, MIG and SAP, which ask whether single dimensions of codes stand for single factors.

These metrics were made for codes in which every factor has a dimension of its own. The codes of
LORD are two vectors, whose separation `blocks` measures.
"""

from collections.abc import Callable, Mapping

import numpy as np
from scipy.stats import entropy
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import mutual_info_score
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lord_fast.evaluate.splits import Split

TREES = 20
BINS = 20
"""Number of equally wide bins of each dimension, as in the figures of Locatello et al. (2019)."""
TINY = 1e-11
"""Added to importances before their logarithm."""


def forest(seed: int) -> ClassifierMixin:
    """Create the random forest of `dci`. Every split considers all dimensions of the code."""
    return RandomForestClassifier(TREES, max_features=None, random_state=seed)


def dci(
    codes: np.ndarray,
    factors: Mapping[str, np.ndarray],
    split: Split,
    seed: int,
    learner: Callable[[int], ClassifierMixin] = forest,
) -> dict:
    """Measure disentanglement, completeness and informativeness (Eastwood & Williams, 2018).

    Args:
        codes: float [N, D] with D of 2 or more.
        factors: Labels of each factor, int64 [N]. There must be at least two factors.
        split: Images to learn from and images to score.
        seed: Seed of the classifiers.
        learner: Creates a classifier with `feature_importances_` from a seed. Published tables of
            disentanglement_lib use scikit-learn's GradientBoostingClassifier.

    Returns:
        disentanglement and completeness in [0, 1], informativeness (the accuracy on scored images,
        averaged over factors), and `accuracy` of each factor.
    """
    importance = np.empty((codes.shape[1], len(factors)))
    accuracy = {}
    for column, (name, labels) in enumerate(factors.items()):
        model = learner(seed)
        model.fit(codes[split.train], labels[split.train])
        importance[:, column] = np.abs(model.feature_importances_)
        accuracy[name] = float(model.score(codes[split.test], labels[split.test]))
    return {
        "disentanglement": disentanglement(importance),
        "completeness": disentanglement(importance.T),
        "informativeness": float(np.mean(list(accuracy.values()))),
        "accuracy": accuracy,
    }


def disentanglement(importance: np.ndarray) -> float:
    """Compute 1 minus the entropy of each row's importances, weighted by the importance of rows.

    Args:
        importance: Importance of each dimension for each factor, float [D, factors]. The transposed
            matrix gives completeness.

    Returns:
        1 if every row has a single importance. 0 if all importances of every row are equal.
    """
    if not importance.any():
        importance = np.ones_like(importance)
    rows = 1 - entropy(importance + TINY, base=importance.shape[1], axis=1)
    return float(rows @ importance.sum(1) / importance.sum())


def mig(codes: np.ndarray, factors: Mapping[str, np.ndarray]) -> float:
    """Compute the mutual information gap (Chen et al., 2018) of codes cut into `BINS` bins.

    It is the difference between the two dimensions that tell most about a factor, divided by the
    entropy of the factor, averaged over factors.

    Args:
        codes: float [N, D] with D of 2 or more.
        factors: Labels of each factor, int64 [N].
    """
    bins = [
        np.digitize(values, np.histogram(values, BINS)[1][:-1])
        for values in np.asarray(codes, dtype=np.float64).T
    ]
    gaps = []
    for labels in factors.values():
        found = np.sort([mutual_info_score(labels, values) for values in bins])
        gaps.append((found[-1] - found[-2]) / mutual_info_score(labels, labels))
    return float(np.mean(gaps))


def sap(codes: np.ndarray, factors: Mapping[str, np.ndarray], split: Split, seed: int) -> float:
    """Compute the separated attribute predictability (Kumar et al., 2018) in its discrete form.

    It is the difference in accuracy between the two dimensions that best predict a factor by a
    linear support vector machine, averaged over factors.

    Args:
        codes: float [N, D] with D of 2 or more.
        factors: Labels of each factor, int64 [N].
        split: Images to learn from and images to score.
        seed: Seed of the classifiers.
    """
    gaps = []
    with threadpool_limits(1):  # The matrices are so small that several threads would be slower.
        for labels in factors.values():
            found = np.sort([_accuracy(values, labels, split, seed) for values in codes.T])
            gaps.append(found[-1] - found[-2])
    return float(np.mean(gaps))


def _accuracy(values: np.ndarray, labels: np.ndarray, split: Split, seed: int) -> float:
    machine = LinearSVC(C=0.01, class_weight="balanced", random_state=seed)
    machine.fit(values[split.train, None], labels[split.train])
    return float(machine.score(values[split.test, None], labels[split.test]))
