"""Splits images into a part to train a probe on and a part to score it on.

A data set is often a grid that has every class once with every content. If single images were drawn
for scoring, the content of a scored image would be missing from its own class in training, but from
no other class. The probe would learn to avoid the right answer, and leakage would be below chance.
Therefore whole contents are held out to predict the class, and whole classes to predict content.
"""

from dataclasses import dataclass

import numpy as np

TEST_SHARE = 1 / 3
FOLDS = 3
FEW = 3000
"""Largest number of images that are all scored, in `FOLDS` folds. Of more images one fold is
enough."""
LEAST_SHARED = 0.5
"""Smallest fraction of images in groups with several labels for which groups are held out."""


@dataclass(frozen=True)
class Split:
    """The images that a probe is trained on and scored on.

    Attributes:
        train: Positions of the images to train on, int64.
        test: Positions of the images to score, int64.
        how: Description for metrics.json.
    """

    train: np.ndarray
    test: np.ndarray
    how: str


def stratified(class_ids: np.ndarray, seed: int) -> Split:
    """Score a third of each class's images, at least one of each class that has two images.

    Args:
        class_ids: int64 [N].
        seed: Seed of the random draw.
    """
    order = np.random.default_rng(seed).permutation(len(class_ids))
    scored = np.zeros(len(class_ids), dtype=bool)
    for class_id in np.unique(class_ids):
        members = order[class_ids[order] == class_id]
        scored[members[: min(max(1, round(len(members) * TEST_SHARE)), len(members) - 1)]] = True
    return Split(np.flatnonzero(~scored), np.flatnonzero(scored), "stratified by class")


def hold_out(labels: np.ndarray, groups: np.ndarray, what: str, seed: int) -> Split | None:
    """Hold out whole groups, drawn at random until they have a third of the images.

    Args:
        labels: The labels to predict, int64 [N]. Every label remains in the training part.
        groups: int64 [N].
        what: Name of the groups in `Split.how`.
        seed: Seed of the random draw.

    Returns:
        The split, or None if labels do not share groups or too few groups can be held out.
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


def class_split(class_ids: np.ndarray, contents: np.ndarray, seed: int) -> Split:
    """Hold out contents to predict the class. If too few can be held out, draw single images.

    Args:
        class_ids: int64 [N]. Every class has at least two images.
        contents: int64 [N].
        seed: Seed of the random draw.
    """
    return hold_out(class_ids, contents, "contents", seed) or stratified(class_ids, seed)


def held_out_contents(class_ids: np.ndarray, contents: np.ndarray, seed: int) -> list[Split]:
    """Hold out contents to predict the class, in three folds if there are few images.

    A third of few images would be too small to detect a small leak.

    Args:
        class_ids: int64 [N].
        contents: int64 [N].
        seed: Seed of the random draw.

    Returns:
        The splits. The list is empty if contents cannot be held out, see `hold_out`.
    """
    once = hold_out(class_ids, contents, "contents", seed)
    if once is None or len(class_ids) > FEW:
        return [once] if once else []
    every = np.ones(len(class_ids), dtype=bool)
    return _folds(class_ids, contents, every, every, f"{once.how}, {FOLDS} folds", seed)


def hold_out_folds(
    labels: np.ndarray, groups: np.ndarray, scored: np.ndarray, what: str, seed: int
) -> list[Split]:
    """Score each image of one part with a probe that was trained on other groups of the other part.

    Args:
        labels: The labels to predict, int64 [N]. Images whose label is not in training are left
            out.
        groups: int64 [N].
        scored: Mask of the part to score, bool [N]. The rest is the part to train on.
        what: Name of the groups in `Split.how`.
        seed: Seed of the folds.

    Returns:
        Three splits, or one split without held-out groups if labels do not share groups. The list
        is empty if too few labels remain.
    """
    if shared(labels, groups):
        return _folds(labels, groups, ~scored, scored, f"the run's store, {what} held out", seed)
    train = np.flatnonzero(~scored)
    test = np.flatnonzero(scored & np.isin(labels, labels[train]))
    enough = len(test) and len(np.unique(labels[train])) > 1
    return [Split(train, test, "the run's store")] if enough else []


def _folds(
    labels: np.ndarray,
    groups: np.ndarray,
    learnt: np.ndarray,
    scored: np.ndarray,
    how: str,
    seed: int,
) -> list[Split]:
    """Hold out a third of the groups in turn. Train on `learnt` and score `scored`, bool [N]."""
    values = np.random.default_rng(seed).permutation(np.unique(groups))
    splits = []
    for part in np.array_split(values, FOLDS):
        inside = np.isin(groups, part)
        train = np.flatnonzero(learnt & ~inside)
        test = np.flatnonzero(scored & inside & np.isin(labels, labels[train]))
        if len(test) and len(np.unique(labels[train])) > 1:
            splits.append(Split(train, test, how))
    return splits


def shared(labels: np.ndarray, groups: np.ndarray) -> bool:
    """Return whether there are several groups and most images are in groups with several labels."""
    pairs = np.unique(np.stack((groups, labels)), axis=1)
    values, numbers = np.unique(pairs[0], return_counts=True)
    mixed = np.isin(groups, values[numbers > 1])
    return len(values) > 1 and bool(mixed.mean() >= LEAST_SHARED)
