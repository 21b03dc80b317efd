"""Compares samples with real images in VGG16 features."""

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_mmd

from lord_fast.data.store import ImageStore, as_float
from lord_fast.lord import Lord
from lord_fast.model.density import Kind
from lord_fast.model.perceptual import VGG16
from lord_fast.system import INFERENCE_BATCH

MAX_SAMPLES = 500
SUBSETS = 100
NEIGHBOUR = 3


def samples(lord: Lord, store: ImageStore, vgg: VGG16, seed: int) -> dict:
    """Measure two distances, precision and recall of samples and of real images.

    Half of the real images serve as the reference. The other half is measured like samples, which
    shows what a perfect model would reach.

    Args:
        lord: A model with stage 1.
        store: The training images.
        vgg: VGG16 with the tap pool5.
        seed: Seed of the random draws.
    """
    count = min(MAX_SAMPLES, store.num_images // 2)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(store.num_images))
    reference, others = (_real_features(vgg, store, ids) for ids in order[: 2 * count].split(count))
    found = {"images": count, "real": quality(reference, others, seed)}
    kinds: tuple[tuple[str, Kind, bool], ...] = (
        ("mixture", "mixture", False), ("training", "training", False),
        ("mixture_new_classes", "mixture", True),
    )  # fmt: skip
    for name, density, new_classes in kinds:
        images = lord.sample(count, new_classes, density, seed).cpu()
        found[name] = quality(reference, _features(vgg, images), seed)
    return found


def quality(real: Tensor, made: Tensor, seed: int) -> dict:
    """Compare two sets of features of the same size.

    Args:
        real: float32 [N, dim]. Both sets are divided by the root mean square of this one, because
            the scale of features affects the kernel.
        made: float32 [N, dim].
        seed: Seed of the random halves.

    Returns:
        `kernel_distance` is the unbiased squared MMD with the kernel (x y / dim + 1)^3 (Binkowski
        et al., 2018), and `interval` its 95 % interval over random halves.
        `frechet_distance_vgg16` is the squared Fréchet distance (Heusel et al., 2017) of these
        features. It is not the FID, whose features are those of Inception. `precision` and
        `recall` are the fractions of one set inside the third-neighbour balls of the other
        (Kynkaanniemi et al., 2019).
    """
    rng = np.random.default_rng(seed)
    scale = real.square().mean().sqrt()
    real, made = real / scale, made / scale

    def half(features: Tensor) -> Tensor:
        return features[torch.from_numpy(rng.permutation(len(features))[: len(features) // 2])]

    halves = [float(poly_mmd(half(real), half(made))) for _ in range(SUBSETS)]
    return {
        "kernel_distance": float(poly_mmd(real, made)),
        "interval": [float(end) for end in np.percentile(halves, (2.5, 97.5))],
        "frechet_distance_vgg16": frechet_distance(real, made),
        "precision": _covered(made, real),
        "recall": _covered(real, made),
    }


def frechet_distance(real: Tensor, made: Tensor) -> float:
    """Compute the squared Fréchet distance of two sets of features, as torchmetrics does for FID.

    Args:
        real: float32 [N, dim].
        made: float32 [M, dim].
    """
    metric = FrechetInceptionDistance(_Features(real.shape[1]))
    metric.update(real, real=True)
    metric.update(made, real=False)
    return float(metric.compute())


class _Features(nn.Identity):
    """Takes the place of the Inception network, because the features are computed already."""

    def __init__(self, dim: int):
        super().__init__()
        self.num_features = dim


def _covered(points: Tensor, by: Tensor) -> float:
    """Return the fraction of `points` inside the third-neighbour ball of some point of `by`."""
    radius = torch.cdist(by, by).kthvalue(NEIGHBOUR + 1, dim=1).values
    return float((torch.cdist(points, by) <= radius).any(1).float().mean())


def _real_features(vgg: VGG16, store: ImageStore, image_ids: Tensor) -> Tensor:
    batches = image_ids.split(INFERENCE_BATCH)
    return torch.cat([_features(vgg, as_float(store.images(batch))) for batch in batches])


@torch.no_grad()
def _features(vgg: VGG16, images: Tensor) -> Tensor:
    """Compute the last feature maps averaged over the image, float32 [N, 512]."""
    device = vgg.mean.device
    return torch.cat(
        [vgg(batch.to(device))[-1].mean((2, 3)).cpu() for batch in images.split(INFERENCE_BATCH)]
    )
