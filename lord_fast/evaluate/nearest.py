"""Measures the distance of samples to the training data, which shows whether samples are new."""

import numpy as np
import torch
from torch import Tensor

from lord_fast.data.store import ImageStore, as_float
from lord_fast.lord import Lord
from lord_fast.system import INFERENCE_BATCH

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
    scale = made.shape[1] ** 0.5
    scaled = content.cpu() / (lord.config.model.content_std or 1.0)
    return {
        "samples": SAMPLES,
        "trained_on": len(ids),
        "code": compare_nearest(scaled, codes, 1.0),
        "image": compare_nearest(made, _Images(store, ids), scale),
    }


def compare_nearest(made: Tensor, trained: "Tensor | _Images", scale: float) -> dict:
    """Compare the distances of points to their nearest training points.

    Args:
        made: float32 [M, D].
        trained: At least two training points in random order, float32 [N, D]. They are read in
            batches, because images may not fit in memory.
        scale: Divisor of all distances.

    Returns:
        `median` is the median distance of the points. `real_median` is that of as many training
        points to their nearest other training point. `nearer` is the fraction of points that are
        nearer than the nearest 5 % of these training points.
    """
    first = trained[: len(made)]
    found, real = (torch.full((len(points),), torch.inf) for points in (made, first))
    for start in range(0, len(trained), INFERENCE_BATCH):
        batch = trained[start : start + INFERENCE_BATCH]
        found = torch.minimum(found, torch.cdist(made, batch).min(1).values / scale)
        own = torch.cdist(first, batch)
        own[start : start + len(batch)].fill_diagonal_(torch.inf)
        real = torch.minimum(real, own.min(1).values / scale)
    return {
        "median": float(found.median()),
        "real_median": float(real.median()),
        "nearer": float((found < real.quantile(0.05)).float().mean()),
    }


class _Images:
    """Images of a store, each as a row of pixels, which are read when they are needed."""

    def __init__(self, store: ImageStore, image_ids: Tensor):
        self.store, self.image_ids = store, image_ids

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, positions: slice) -> Tensor:
        ids = self.image_ids[positions].split(INFERENCE_BATCH)
        return torch.cat([as_float(self.store.images(batch)).flatten(1) for batch in ids])
