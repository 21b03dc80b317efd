"""Measures leakage in held-out images with probes that were trained on the training images."""

import numpy as np
import torch

from lord_fast.evaluate.code_sources import EncoderCodes
from lord_fast.evaluate.controls import leakage
from lord_fast.evaluate.draw import draw_images
from lord_fast.evaluate.labels import combinations
from lord_fast.evaluate.splits import hold_out_folds

MOST_TRAINED = 3000
"""Largest number of training images for the probes, see `draw_images`."""


def leakage_of_held_out(trained: EncoderCodes, held_out: EncoderCodes, seed: int) -> dict:
    """Measure how well the class is read from content codes of held-out images.

    The held-out store may have few images of each class, because the probes do not learn on it.

    Args:
        trained: Codes of the training images, on which the probes are trained.
        held_out: Codes of the images to score.
        seed: Seed of the random draws and of the probes.

    Returns:
        The result of `leakage`, or the reason under `missing` if it cannot be measured.
    """
    names = {name: number for number, name in enumerate(trained.store.class_names)}
    unknown = [name for name in held_out.store.class_names if name not in names]
    if unknown:
        return {"missing": f"the run was not trained on class {unknown[0]}"}
    numbers = np.array([names[name] for name in held_out.store.class_names])
    scored = draw_images(held_out.store, seed).numpy()
    scored_labels = numbers[held_out.store.class_ids.numpy()[scored]]
    learnt = draw_images(trained.store, seed, MOST_TRAINED, np.unique(scored_labels)).numpy()
    learnt_labels = trained.store.class_ids.numpy()[learnt]
    known = np.isin(scored_labels, learnt_labels)
    scored, scored_labels = scored[known], scored_labels[known]
    labels = np.concatenate((learnt_labels, scored_labels))
    contents = combinations(trained.store, held_out.store)
    groups = np.concatenate((contents[0][learnt], contents[1][scored]))
    is_scored = np.arange(len(labels)) >= len(learnt)
    splits = hold_out_folds(labels, groups, is_scored, "contents", seed)
    if not splits:
        return {"missing": "too few classes with images in both stores"}
    codes = [trained(torch.from_numpy(learnt))[0], held_out(torch.from_numpy(scored))[0]]
    return leakage(torch.cat(codes).cpu().numpy(), labels, groups, splits, seed)
