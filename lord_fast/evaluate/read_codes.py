"""Leakage and informativeness of codes, whatever model they come from."""

from dataclasses import dataclass

import numpy as np

from lord_fast.evaluate.controls import leakage
from lord_fast.evaluate.probes import factor_split, probe, probe_factor
from lord_fast.evaluate.splits import hold_out, stratified


@dataclass(frozen=True)
class Labels:
    """What is known of the images.

    Attributes:
        classes: int64 [N].
        contents: int64 [N], each combination of content labels as one number.
        factors: Name -> int64 [N], of each content factor.
    """

    classes: np.ndarray
    contents: np.ndarray
    factors: dict[str, np.ndarray]


def probe_codes(
    content: np.ndarray,
    class_: np.ndarray | None,
    labels: Labels,
    seed: int,
    pixels: np.ndarray | None = None,
) -> dict:
    """`leakage` and `informativeness` of metrics.json.

    Args:
        content: Content codes, float32 [N, content_dim].
        class_: Class codes, float32 [N, class_dim]; None: the model has none.
        labels: Of the images; every class has two or more.
        seed: Of the splits, the probes and the controls.
        pixels: A positive control for the class read from content, see `leakage`.
    """
    classes, contents = labels.classes, labels.contents
    at_random = stratified(classes, seed)
    held_out = hold_out(classes, contents, "contents", seed)
    splits = [held_out or at_random]
    leaks = {"class_from_content": leakage(content, classes, contents, splits, seed, pixels)}
    if held_out:
        found = leakage(content, classes, contents, [at_random], seed, pixels)
        leaks["class_from_seen_content"] = found
    informative: dict = {
        "content_from_content": {
            name: probe_factor(content, factor, classes, seed)
            for name, factor in labels.factors.items()
        }
    }
    if class_ is not None:
        leaks["content_from_class"] = {
            name: factor_leakage(class_, factor, classes, seed)
            for name, factor in labels.factors.items()
        }
        read = probe(class_, classes, splits, seed, (classes, contents))
        informative = {"class_from_class": read, **informative}
    return {"leakage": leaks, "informativeness": informative}


def factor_leakage(
    codes: np.ndarray, factor: np.ndarray, classes: np.ndarray, seed: int
) -> dict | None:
    """`leakage` of one content factor; None where there is too little of it.

    Args:
        codes: Class codes, float32 [N, D].
        factor: int64 [N].
        classes: int64 [N].
        seed: Of the split, the probes and the controls.
    """
    found = factor_split(factor, classes, seed)
    if found is None:
        return None
    kept, split = found
    return leakage(codes[kept], factor[kept], classes[kept], [split], seed)
