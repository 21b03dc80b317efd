"""Measures the distance of samples to the training data, which shows whether samples are new."""

import numpy as np
import torch
from torch import Tensor

from lord_fast.data.store import ImageStore, as_float
from lord_fast.lord import Lord

SAMPLES = 200
MOST_TRAINED = 5000


def nearest_training(lord: Lord, store: ImageStore, seed: int) -> dict:
    """Measure the distance of each sample to its nearest training code and training image.

    Args:
        lord: A model with stage 1.
        store: The training images.
        seed: Seed of the samples. If there are more than `MOST_TRAINED` training images, it also
            selects which ones are used.

    Returns:
        The numbers `samples` and `trained_on`, and the results of `compare_nearest` for `code` and
        `image`. Distances of content codes are Euclidean in units of content_std. Distances of
        images are root mean squares over the pixels.
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
    """Compare the distances of points to their nearest training points.

    Args:
        made: float32 [M, D].
        trained: At least two training points in random order, float32 [N, D].
        scale: Divisor of all distances.

    Returns:
        `median` is the median distance of the points. `real_median` is that of as many training
        points to their nearest other training point. `nearer` is the fraction of points that are
        nearer than the nearest 5 % of these training points.
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
