"""How far images are from their targets: PSNR, SSIM and a perceptual distance."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from lord_fast.data.store import as_float
from lord_fast.evaluate.bootstrap import intervals
from lord_fast.evaluate.lpips import Lpips

BATCH = 128
PERCEPTUAL_PAIRS = 512
"""Pairs whose perceptual distance is measured, which takes most of the time."""
LEAST_MSE = 1e-10
"""Equal images count as 100 dB in `psnr_per_image`."""

ImageMetrics = dict[str, Tensor]
"""Name (`mse`, `ssim`, `perceptual`) -> float64 [number of pairs]."""


def compare(
    images: Callable[[Tensor], Tensor],
    targets: Callable[[Tensor], Tensor],
    count: int,
    lpips: Lpips | None,
) -> ImageMetrics:
    """Every pair's distances.

    Args:
        images: Positions int64 [B] -> images [B, C, H, W] in [0, 1].
        targets: The same for their targets.
        count: Number of pairs.
        lpips: The perceptual distance, of the first `PERCEPTUAL_PAIRS` or a few more; None: leave
            it out.

    Returns:
        `mse`, `ssim` and, with `lpips`, `perceptual`, each float64 [count].
    """
    parts: list[dict[str, Tensor]] = []
    for positions in torch.arange(count).split(BATCH):
        few = lpips if int(positions[0]) < PERCEPTUAL_PAIRS else None
        parts.append(_distances(images(positions), targets(positions), few))
    return {
        name: torch.cat([part[name] for part in parts if name in part]).double()
        for name in parts[0]
    }


def summary(metrics: ImageMetrics, seed: int, clusters: Sequence[np.ndarray] = ()) -> dict:
    """The three figures of metrics.json, and under `interval` the 95 % interval of each.

    `psnr` in dB is of the mean squared error over all pairs; `psnr_per_image`, the mean of each
    pair's PSNR, is higher and lets a few perfect images hide the bad ones, but many papers report
    it. The others are means.

    Args:
        metrics: What `compare` found.
        seed: Of the intervals.
        clusters: What they are drawn over, see `intervals`.
    """
    perceptual = metrics.get("perceptual")
    names = [name for name in metrics if name != "perceptual"]
    ends = dict(zip(names, _ends(metrics, names, seed, clusters), strict=True))
    if perceptual is not None:  # of the first pairs only
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
    """Peak signal-to-noise ratio in dB of the mean squared error over all pairs."""
    return float(-10 * torch.log10(metrics["mse"].mean()))


def _distances(images: Tensor, targets: Tensor, lpips: Lpips | None) -> dict[str, Tensor]:
    ssim = structural_similarity_index_measure(images, targets, data_range=1.0, reduction="none")
    assert isinstance(ssim, Tensor)
    out = {"mse": (images - targets).square().mean((1, 2, 3)), "ssim": ssim}
    if lpips is not None:
        out["perceptual"] = lpips(images, targets)
    return out


def pixels_of(store, image_ids: Tensor) -> Callable[[Tensor], Tensor]:
    """Positions in `image_ids` -> those images of a store, float32 in [0, 1]."""
    return lambda positions: as_float(store.images(image_ids[positions]))
