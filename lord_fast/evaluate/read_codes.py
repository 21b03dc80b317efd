"""Measures leakage and informativeness of the codes of any model."""

from dataclasses import dataclass, field

import numpy as np

from lord_fast.evaluate.controls import leakage
from lord_fast.evaluate.probes import factor_split, probe, probe_factor
from lord_fast.evaluate.splits import held_out_contents, stratified


@dataclass(frozen=True)
class Labels:
    """The labels of images.

    Attributes:
        classes: Class of each image, int64 [N].
        contents: Combination of content labels of each image as one number, int64 [N].
        factors: Labels int64 [N] of each content factor by name.
        numbers: Values float64 [N] of each numeric content factor by name.
    """

    classes: np.ndarray
    contents: np.ndarray
    factors: dict[str, np.ndarray]
    numbers: dict[str, np.ndarray] = field(default_factory=dict)


def probe_codes(
    content: np.ndarray,
    class_: np.ndarray | None,
    labels: Labels,
    seed: int,
    pixels: np.ndarray | None = None,
) -> dict:
    """Compute `leakage` and `informativeness` of metrics.json.

    Args:
        content: Content codes, float32 [N, content_dim].
        class_: Class codes, float32 [N, class_dim], or None if the model has none.
        labels: Labels of the images. Every class must have at least two images.
        seed: Seed of the splits, the probes and the controls.
        pixels: Codes that serve as a positive control of class leakage, see `leakage`.
    """
    classes, contents = labels.classes, labels.contents
    at_random = stratified(classes, seed)
    held_out = held_out_contents(classes, contents, seed)
    splits = held_out or [at_random]
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
    """Measure `leakage` of one content factor. The result is None if it has too few images.

    Args:
        codes: Class codes, float32 [N, D].
        factor: Labels of the factor, int64 [N].
        classes: int64 [N].
        seed: Seed of the split, the probes and the controls.
    """
    found = factor_split(factor, classes, seed)
    if found is None:
        return None
    kept, split = found
    return leakage(codes[kept], factor[kept], classes[kept], [split], seed)
