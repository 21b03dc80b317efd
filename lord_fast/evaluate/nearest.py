"""Are samples new? How far they are from what training held."""

import numpy as np
import torch
from torch import Tensor

from lord_fast.data.store import ImageStore, as_float
from lord_fast.lord import Lord

SAMPLES = 200
MOST_TRAINED = 5000


def nearest_training(lord: Lord, store: ImageStore, seed: int) -> dict:
    """Distance of each sample to its nearest training code and image.

    Args:
        lord: Of stage 1.
        store: The images it was trained on.
        seed: Of the samples, and of the training images where they are more than `MOST_TRAINED`.

    Returns:
        samples, trained_on (numbers), and for `code` (content codes, Euclidean, in units of
        content_std) and `image` (root mean square of the pixels): median over the samples,
        real_median of as many training ones to their nearest other one, and nearer: the share of
        samples that are nearer than the nearest 5 % of these.
    """
    order = torch.from_numpy(np.random.default_rng(seed).permutation(store.num_images))
    ids = order[:MOST_TRAINED]
    codes = lord.content_codes.cpu()[ids] / (lord.config.model.content_std or 1.0)
    content, class_ = lord.sample_codes(SAMPLES, seed=seed)
    made = lord.decode(content, class_, "latent").cpu().flatten(1)
    images = as_float(store.images(ids)).flatten(1)
    scale = images.shape[1] ** 0.5
    scaled = content.cpu() / (lord.config.model.content_std or 1.0)
    return {
        "samples": SAMPLES,
        "trained_on": len(ids),
        "code": compare_nearest(scaled, codes, 1.0),
        "image": compare_nearest(made, images, scale),
    }


def compare_nearest(made: Tensor, trained: Tensor, scale: float) -> dict:
    """Of points: median, real_median and nearer, see `nearest_training`.

    Args:
        made: float32 [M, D].
        trained: float32 [N, D], two or more, in random order.
        scale: What distances are divided by.
    """
    found = torch.cdist(made, trained).min(1).values / scale
    first = trained[: len(made)]
    own = torch.cdist(first, trained)
    own.fill_diagonal_(torch.inf)
    real = own.min(1).values / scale
    return {
        "median": float(found.median()),
        "real_median": float(real.median()),
        "nearer": float((found < real.quantile(0.05)).float().mean()),
    }
