"""Measures codes by the metrics of the literature on disentanglement.

These are DCI, MIG and SAP, InfoM, InfoE and InfoC, and the regression of numeric content labels.
"""

from collections.abc import Mapping

import numpy as np

from lord_fast.evaluate.blocks import infomec
from lord_fast.evaluate.dimensions import dci, mig, sap
from lord_fast.evaluate.draw import draw_rows
from lord_fast.evaluate.probes import FEWEST_OF_A_LABEL
from lord_fast.evaluate.read_codes import Labels
from lord_fast.evaluate.regression import regress
from lord_fast.evaluate.splits import stratified

MOST_FOR_DIMENSIONS = 1000
"""Largest number of images for DCI, MIG and SAP, whose time grows with dimensions and labels."""
MOST_FOR_CODES = 2000
"""Largest number of images for InfoM, InfoE, InfoC and regression."""


def measure_field(
    content: np.ndarray,
    class_: np.ndarray | None,
    labels: Labels,
    seed: int,
    circular: Mapping[str, float],
) -> dict:
    """Compute `dimensions`, `blocks` and `regression` of metrics.json.

    Args:
        content: Content codes, float [N, content_dim].
        class_: Class codes, float [N, class_dim], or None if the model has none.
        labels: Labels of the images. Every class must have at least two images.
        seed: Seed of the draws, the splits and the classifiers.
        circular: Period of each circular factor of `labels.numbers`.
    """
    parts = [content] if class_ is None else [content, class_]
    return {
        "dimensions": _dimensions(np.hstack(parts), labels, seed),
        "blocks": _blocks(content, class_, labels, seed),
        "regression": _regressions(content, class_, labels, seed, circular),
    }


def _drawn(labels: Labels, most: int, seed: int) -> np.ndarray:
    """Draw at most `most` images as `evaluate` does. Returns positions, int64."""
    count = int(labels.classes.max()) + 1
    present = np.unique(labels.classes)
    return draw_rows(labels.classes, count, lambda: labels.contents, seed, most, present)


def _dimensions(codes: np.ndarray, labels: Labels, seed: int) -> dict:
    """Measure DCI, MIG and SAP, and the same on codes that are permuted among the images."""
    rows = _drawn(labels, MOST_FOR_DIMENSIONS, seed)
    codes, classes = codes[rows], labels.classes[rows]
    factors = {
        name: values[rows]
        for name, values in {"class": labels.classes, **labels.factors}.items()
        if 1 < len(np.unique(values[rows])) <= len(rows) / FEWEST_OF_A_LABEL
    }
    if len(factors) < 2:
        why = f"fewer than two factors have {FEWEST_OF_A_LABEL} images of a label on average"
        return {"missing": why}
    if codes.shape[1] < 2:
        return {"missing": "the code has one dimension"}
    split = stratified(classes, seed)
    permuted = codes[np.random.default_rng(seed).permutation(len(codes))]
    found = {
        name: {
            "dci": dci(of, factors, split, seed),
            "mig": mig(of, factors),
            "sap": sap(of, factors, split, seed),
        }
        for name, of in (("codes", codes), ("permuted", permuted))
    }
    return {
        "images": len(rows),
        "factors": list(factors),
        "dimensions": codes.shape[1],
        **found.pop("codes"),
        **found,
    }


def _blocks(content: np.ndarray, class_: np.ndarray | None, labels: Labels, seed: int) -> dict:
    if class_ is None:
        return {"missing": "there are no class codes"}
    rows = _drawn(labels, MOST_FOR_CODES, seed)
    factors = {name: values[rows] for name, values in labels.factors.items()}
    found = infomec(
        content[rows], class_[rows], labels.classes[rows], labels.contents[rows], factors, seed
    )
    return {"images": len(rows), **found}


def _regressions(
    content: np.ndarray,
    class_: np.ndarray | None,
    labels: Labels,
    seed: int,
    circular: Mapping[str, float],
) -> dict:
    rows = _drawn(labels, MOST_FOR_CODES, seed)
    found: dict = {}
    for of, codes in (("content_from_content", content), ("content_from_class", class_)):
        if codes is not None:
            found[of] = {
                name: regress(
                    codes[rows], values[rows], labels.classes[rows], seed, circular.get(name)
                )
                for name, values in labels.numbers.items()
            }
    return found
