"""All metrics of a run: reconstruction, leakage, informativeness, transfer."""

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from lord_fast.data.store import ImageStore
from lord_fast.evaluate.images import ImageMetrics, compare, pixels_of, psnr, summary
from lord_fast.evaluate.probes import Split, probe, probe_factor, split
from lord_fast.evaluate.transfer import class_means, draw_pairs
from lord_fast.lord import Lord
from lord_fast.model.perceptual import VGG16

MAX_IMAGES = 5000
"""Images that reconstruction and probes look at; whole classes are drawn."""


def evaluate(lord: Lord, store: ImageStore, vgg: VGG16 | None, seed: int = 0) -> dict:
    """The content of metrics.json, for the codes that training optimized.

    Args:
        lord: The trained model.
        store: The images it was trained on.
        vgg: Features for the perceptual distance; None: it is left out (null).
        seed: Of every draw and of the probes.
    """
    image_ids = draw_images(store, seed)
    return {
        "codes": "latent",
        "step": lord.step,
        "seed": seed,
        "reconstruction": _reconstruction(lord, store, image_ids, vgg),
        **_probes(lord, store, image_ids, seed),
        "transfer": _transfer(lord, store, vgg, seed),
    }


def draw_images(store: ImageStore, seed: int) -> Tensor:
    """All images, or those of as many whole classes, drawn at random, as `MAX_IMAGES` hold."""
    counts = torch.bincount(store.class_ids, minlength=store.num_classes)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(store.num_classes))
    wanted = order[: max(2, int((counts[order].cumsum(0) <= MAX_IMAGES).sum()))]
    return torch.isin(store.class_ids, wanted).nonzero()[:, 0]


def table(metrics: dict) -> Table:
    """A readable table of the same figures."""
    out = Table("what", "figure", "chance or baseline", title=f"step {metrics['step']}")
    reconstruction = metrics["reconstruction"]
    out.add_row("reconstruction", _images(reconstruction), "")
    for direction in ("leakage", "informativeness"):
        for name, found in metrics[direction].items():
            factors = found if name.startswith("content_from") else {"": found}
            for factor, result in factors.items():
                label = f"{direction}: {name.replace('_', ' ')} {factor}".strip()
                out.add_row(label, *_probe_cells(result))
    transfer = metrics["transfer"]
    if transfer is None:
        out.add_row("transfer", "not measured", "no content label occurs in two classes")
    else:
        baselines = (
            f"class mean {transfer['class_mean_psnr']:.2f} dB, "
            f"content image unchanged {transfer['copy_content_psnr']:.2f} dB"
        )
        out.add_row(f"transfer ({transfer['pairs']} pairs)", _images(transfer), baselines)
    return out


def _images(figures: dict) -> str:
    perceptual = figures["perceptual"]
    shown = "" if perceptual is None else f", perceptual {perceptual:.3f}"
    return f"{figures['psnr']:.2f} dB, SSIM {figures['ssim']:.3f}{shown}"


def _probe_cells(result: dict | None) -> tuple[str, str]:
    if result is None:
        return "not measured", "too few images of a label"
    figure = f"{result['accuracy']:.3f} (linear), {result['mlp_accuracy']:.3f} (MLP)"
    return figure, f"{result['chance']:.3f} ({result['scored_on']} images scored)"


def _reconstruction(lord: Lord, store: ImageStore, ids: Tensor, vgg: VGG16 | None) -> dict:
    def images(positions: Tensor) -> Tensor:
        rows = ids[positions]
        images = lord.decode(lord.content_codes[rows], lord.class_codes[store.class_ids[rows]])
        return images.cpu()

    return summary(compare(images, pixels_of(store, ids), len(ids), vgg))


def _probes(lord: Lord, store: ImageStore, ids: Tensor, seed: int) -> dict:
    content = lord.content_codes[ids].cpu().numpy()
    class_ids = store.class_ids[ids]
    class_ = lord.class_codes[class_ids].cpu().numpy()
    parts = split(class_ids.numpy(), seed)
    factors = {
        name: store.content_ids[ids, column].numpy() for column, name in enumerate(store.factors)
    }
    return {
        "leakage": {
            "class_from_content": probe(content, class_ids.numpy(), parts, seed),
            "content_from_class": _each_factor(class_, factors, parts, seed),
        },
        "informativeness": {
            "class_from_class": probe(class_, class_ids.numpy(), parts, seed),
            "content_from_content": _each_factor(content, factors, parts, seed),
        },
    }


def _each_factor(codes: np.ndarray, factors: dict, parts: Split, seed: int) -> dict:
    return {name: probe_factor(codes, labels, parts, seed) for name, labels in factors.items()}


def _transfer(lord: Lord, store: ImageStore, vgg: VGG16 | None, seed: int) -> dict | None:
    pairs = draw_pairs(store, seed)
    if pairs is None:
        return None
    means = class_means(store)
    targets = pixels_of(store, pairs.target)

    def transferred(positions: Tensor) -> Tensor:
        content = lord.content_codes[pairs.content[positions]]
        return lord.decode(content, lord.class_codes[pairs.class_[positions]]).cpu()

    def baseline(images) -> ImageMetrics:
        return compare(images, targets, len(pairs.target), None)

    return {
        "pairs": len(pairs.target),
        **summary(compare(transferred, targets, len(pairs.target), vgg)),
        "class_mean_psnr": psnr(baseline(lambda positions: means[pairs.class_[positions]])),
        "copy_content_psnr": psnr(baseline(pixels_of(store, pairs.content))),
    }
