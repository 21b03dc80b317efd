"""Compares images with their targets by PSNR, SSIM and a perceptual distance."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from lord_fast.data.store import ImageStore, as_float
from lord_fast.evaluate.bootstrap import intervals
from lord_fast.evaluate.lpips import Lpips
from lord_fast.system import INFERENCE_BATCH

PERCEPTUAL_PAIRS = 512
"""Number of pairs for the perceptual distance, which takes most of the time."""
LEAST_MSE = 1e-10
"""Smallest mean squared error, by which equal images have 100 dB in `psnr_per_image`."""

SIDE = 32
"""Side in pixels to which images are reduced by averaging. Smaller images are not reduced."""

ImageMetrics = dict[str, Tensor]
"""The metrics `mse`, `ssim` and `perceptual` by name, each float64 [number of pairs]."""


def compare(
    images: Callable[[Tensor], Tensor],
    targets: Callable[[Tensor], Tensor],
    count: int,
    lpips: Lpips | None,
) -> ImageMetrics:
    """Compare every image with its target.

    Args:
        images: Takes positions int64 [B] and returns images [B, C, H, W] in [0, 1].
        targets: The same for the targets.
        count: Number of pairs.
        lpips: The perceptual distance, which is computed for the first `PERCEPTUAL_PAIRS` pairs or
            a few more. None leaves it out.

    Returns:
        `mse` and `ssim`, each float64 [count], and with `lpips` also `perceptual`, which may be
        shorter.
    """
    parts: list[dict[str, Tensor]] = []
    for positions in torch.arange(count).split(INFERENCE_BATCH):
        few = lpips if int(positions[0]) < PERCEPTUAL_PAIRS else None
        parts.append(_distances(images(positions), targets(positions), few))
    return {
        name: torch.cat([part[name] for part in parts if name in part]).double()
        for name in parts[0]
    }


def summary(metrics: ImageMetrics, seed: int, clusters: Sequence[np.ndarray] = ()) -> dict:
    """Summarize metrics for metrics.json. The key `interval` holds their 95 % intervals.

    `psnr` in dB is computed from the mean squared error over all pairs. `psnr_per_image` is the
    mean of the PSNRs of the pairs. It is higher, and a few perfect images can hide bad ones in it,
    but many papers report it. The other values are means.

    Args:
        metrics: The result of `compare`.
        seed: Seed of the intervals.
        clusters: Clusters of the intervals, see `intervals`.
    """
    perceptual = metrics.get("perceptual")
    names = [name for name in metrics if name != "perceptual"]
    ends = dict(zip(names, _ends(metrics, names, seed, clusters), strict=True))
    if perceptual is not None:  # It is measured only for the first pairs.
        some = [cluster[: len(perceptual)] for cluster in clusters]
        ends["perceptual"] = _ends(metrics, ["perceptual"], seed, some)[0]
    ends["psnr"] = (-10 * np.log10(np.maximum(ends.pop("mse"), LEAST_MSE)))[::-1]
    return {
        "psnr": psnr(metrics),
        "psnr_per_image": float(-10 * metrics["mse"].clamp_min(LEAST_MSE).log10().mean()),
        "ssim": float(metrics["ssim"].mean()),
        "perceptual": None if perceptual is None else float(perceptual.mean()),
        "interval": {name: found.tolist() for name, found in ends.items()},
    }


def _ends(
    metrics: ImageMetrics, names: list[str], seed: int, clusters: Sequence[np.ndarray]
) -> np.ndarray:
    return intervals(np.stack([metrics[name].numpy() for name in names], 1), seed, clusters)


def psnr(metrics: ImageMetrics) -> float:
    """Compute the peak signal-to-noise ratio in dB from the mean squared error over all pairs."""
    return float(-10 * torch.log10(metrics["mse"].mean()))


def _distances(images: Tensor, targets: Tensor, lpips: Lpips | None) -> dict[str, Tensor]:
    ssim = structural_similarity_index_measure(images, targets, data_range=1.0, reduction="none")
    assert isinstance(ssim, Tensor)
    out = {"mse": (images - targets).square().mean((1, 2, 3)), "ssim": ssim}
    if lpips is not None:
        out["perceptual"] = lpips(images, targets)
    return out


def reduced(images: Tensor) -> Tensor:
    """Average images [B, C, H, W] to at most `SIDE` pixels a side."""
    return nn.functional.adaptive_avg_pool2d(images, min(SIDE, images.shape[-1]))


def read_reduced(store: ImageStore, image_ids: Tensor) -> Tensor:
    """Read and reduce images in batches, because whole images may not fit in memory.

    Returns:
        float32 [N, C, side, side] in [0, 1], see `reduced`.
    """
    batches = image_ids.split(INFERENCE_BATCH)
    return torch.cat([reduced(as_float(store.images(batch))) for batch in batches])


class Pictures(Sequence[np.ndarray]):
    """Images of a store as uint8 [H, W, C], each of which is read when it is needed."""

    def __init__(self, store: ImageStore, image_ids: Tensor):
        self.store, self.image_ids = store, image_ids

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, position):
        """Read one image."""
        return (
            self.store.images(self.image_ids[position : position + 1])[0].permute(1, 2, 0).numpy()
        )


def pixels_of(store, image_ids: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function of positions in `image_ids` that reads these images, float32 in [0, 1]."""
    return lambda positions: as_float(store.images(image_ids[positions]))
