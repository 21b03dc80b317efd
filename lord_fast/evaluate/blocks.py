"""Measures InfoM, InfoE and InfoC of two vector codes (Hsu et al., 2023).

The metrics of "Disentanglement via latent quantization" compare single dimensions with single
factors. Here the two parts of the code (content and class) are compared with the two groups of
factors (content and class).
"""

from collections.abc import Mapping

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lord_fast.evaluate.probes import factor_split
from lord_fast.evaluate.splits import Split, class_split

REGULARIZATIONS = (1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths of weight decay. The one with the lowest loss is used."""

LEAST = 0.02
"""A code or a group with less information in total counts as one without any."""


def infomec(
    content: np.ndarray,
    class_: np.ndarray,
    classes: np.ndarray,
    contents: np.ndarray,
    factors: Mapping[str, np.ndarray],
    seed: int,
) -> dict:
    """Measure how the information about class and content is distributed over the two codes.

    Args:
        content: Content codes, float [N, content_dim].
        class_: Class codes, float [N, class_dim].
        classes: Class of each image, int64 [N].
        contents: Combination of content labels of each image as one number, int64 [N].
        factors: Labels of each content factor, int64 [N].
        seed: Seed of the splits.

    Returns:
        `infom`, `infoe` and `infoc`. `information` has the information of content code, class code
        and both about the class and about each content factor. The result is `missing` if no
        content factor can be predicted (see `factor_split`).
    """
    codes = {"content_code": content, "class_code": class_, "both": np.hstack((content, class_))}
    split = class_split(classes, contents, seed)
    everything = np.ones(len(classes), dtype=bool)
    found = {"class": _of_codes(codes, classes, everything, split)}
    for name, labels in factors.items():
        kept_and_split = factor_split(labels, classes, seed)
        if kept_and_split is not None:
            found[name] = _of_codes(codes, labels, *kept_and_split)
    if len(found) == 1:
        return {"missing": "no content label has enough images"}
    return {**scores(_groups(found)), "information": found}


def _of_codes(
    codes: Mapping[str, np.ndarray], labels: np.ndarray, kept: np.ndarray, split: Split
) -> dict[str, float]:
    return {name: information(of[kept], labels[kept], split) for name, of in codes.items()}


def _groups(found: Mapping[str, Mapping[str, float]]) -> np.ndarray:
    """Average the information about content factors, see `scores` for the result."""
    table = {name: list(values.values()) for name, values in found.items()}
    class_ = table.pop("class")
    return np.array([class_, np.mean(list(table.values()), axis=0)])


def information(codes: np.ndarray, labels: np.ndarray, split: Split) -> float:
    """Compute the predictive information of codes about labels (Xu et al., 2020).

    It is 1 minus the cross-entropy of a logistic regression divided by that of the labels'
    frequencies, on images that it was not trained on.

    Args:
        codes: float [N, D].
        labels: int64 [N].
        split: Images to learn from and images to score.

    Returns:
        0 if the codes do not help to predict the labels, 1 if they are predicted with certainty.
    """
    test = split.test[np.isin(labels[split.test], labels[split.train])]
    scaler = StandardScaler().fit(codes[split.train])
    train, scored = scaler.transform(codes[split.train]), scaler.transform(codes[test])
    values, counts = np.unique(labels[split.train], return_counts=True)
    prior = np.broadcast_to(counts / counts.sum(), (len(test), len(values)))
    losses = []
    with threadpool_limits(1):  # The matrices are so small that several threads would be slower.
        for strength in REGULARIZATIONS:
            model = LogisticRegression(C=strength, max_iter=1000).fit(train, labels[split.train])
            losses.append(log_loss(labels[test], model.predict_proba(scored), labels=values))
    return max(0.0, float(1 - min(losses) / log_loss(labels[test], prior, labels=values)))


def scores(information: np.ndarray) -> dict[str, float]:
    """Compute InfoM, InfoE and InfoC from normalized information.

    Args:
        information: Information about each group of factors (rows) in the content code, in the
            class code and in both together (columns), float [2, 3].

    Returns:
        `infom` is 1 if each code holds information about one group only. `infoc` is 1 if each group
        is in one code only. `infoe` is the mean information of both codes together. A code or group
        with less information than `LEAST` counts as 0.
    """
    parts = information[:, :2]
    return {
        "infom": _concentration(parts.T),
        "infoe": float(information[:, 2].mean()),
        "infoc": _concentration(parts),
    }


def _concentration(rows: np.ndarray) -> float:
    """Average the largest share of each row, scaled so that equal shares give 0 and one gives 1."""
    total, count = rows.sum(1), rows.shape[1]
    some = total >= LEAST
    shares = np.where(some, rows.max(1) / np.where(some, total, 1), 1 / count)
    return float((shares.mean() - 1 / count) / (1 - 1 / count))
