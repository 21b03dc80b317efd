"""Which images a probe is trained on, and which it is scored on.

A data set is often a grid: every class once with every content. If images are drawn one by one, the
content of an image to score is then missing from the images of its own class to train on, and there
alone: the probe learns to avoid the right answer, and leakage reads below chance. So contents are
held out whole where the class is asked for, and classes whole where content is asked for.
"""

from dataclasses import dataclass

import numpy as np

TEST_SHARE = 1 / 3
FOLDS = 3
LEAST_SHARED = 0.5
"""Share of the images whose group has to hold more than one label: otherwise groups say nothing."""


@dataclass(frozen=True)
class Split:
    """Positions that a probe is trained on and scored on.

    Attributes:
        train: int64 positions.
        test: int64 positions.
        how: As metrics.json says it.
    """

    train: np.ndarray
    test: np.ndarray
    how: str


def stratified(class_ids: np.ndarray, seed: int) -> Split:
    """A third of each class's images to score on, at least one of each that has two.

    Args:
        class_ids: int64 [N].
        seed: Of the draw.
    """
    order = np.random.default_rng(seed).permutation(len(class_ids))
    scored = np.zeros(len(class_ids), dtype=bool)
    for class_id in np.unique(class_ids):
        members = order[class_ids[order] == class_id]
        scored[members[: min(max(1, round(len(members) * TEST_SHARE)), len(members) - 1)]] = True
    return Split(np.flatnonzero(~scored), np.flatnonzero(scored), "stratified by class")


def hold_out(labels: np.ndarray, groups: np.ndarray, what: str, seed: int) -> Split | None:
    """Groups held out whole, drawn one by one until they have a third of the images.

    Args:
        labels: int64 [N], what the probe predicts; all of them stay in training.
        groups: int64 [N].
        what: The groups' name in `Split.how`.
        seed: Of the draw.

    Returns:
        The split; None where labels do not share groups, or too few can be held out.
    """
    if not shared(labels, groups):
        return None
    _, numbers = np.unique(labels, return_inverse=True)
    left = np.bincount(numbers)
    scored = np.zeros(len(labels), dtype=bool)
    wanted = len(labels) * TEST_SHARE
    for group in np.random.default_rng(seed).permutation(np.unique(groups)):
        members = groups == group
        after = left - np.bincount(numbers[members], minlength=len(left))
        if after.min() > 0 and scored.sum() < wanted:
            left, scored = after, scored | members
    if scored.sum() < wanted / 2:
        return None
    return Split(np.flatnonzero(~scored), np.flatnonzero(scored), f"{what} held out")


def hold_out_folds(
    labels: np.ndarray, groups: np.ndarray, scored: np.ndarray, what: str, seed: int
) -> list[Split]:
    """Score each image of one part by a probe trained on the other groups of the other part.

    Args:
        labels: int64 [N], what the probe predicts; images whose label is not in training are left
            out.
        groups: int64 [N].
        scored: bool [N], the part to score; the rest is the part to train on.
        what: The groups' name in `Split.how`.
        seed: Of the draw of the folds.

    Returns:
        Three splits, or one with nothing held out where labels do not share groups; none where
        too few labels are left.
    """
    apart = shared(labels, groups)
    values = np.random.default_rng(seed).permutation(np.unique(groups))
    how = f"the run's store, {what} held out" if apart else "the run's store"
    splits = []
    for part in np.array_split(values, FOLDS) if apart else [values]:
        inside = np.isin(groups, part)
        train = np.flatnonzero(~scored & ~(inside & apart))
        test = np.flatnonzero(scored & inside & np.isin(labels, labels[train]))
        if len(test) and len(np.unique(labels[train])) > 1:
            splits.append(Split(train, test, how))
    return splits


def shared(labels: np.ndarray, groups: np.ndarray) -> bool:
    """Whether there are groups, and most images are of one that holds more than one label."""
    pairs = np.unique(np.stack((groups, labels)), axis=1)
    values, numbers = np.unique(pairs[0], return_counts=True)
    mixed = np.isin(groups, values[numbers > 1])
    return len(values) > 1 and bool(mixed.mean() >= LEAST_SHARED)
