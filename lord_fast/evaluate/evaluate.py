"""All metrics of a run: reconstruction, leakage, informativeness, transfer, samples."""

import numpy as np
import torch
from torch import Tensor

from lord_fast.data.store import ImageStore
from lord_fast.evaluate.code_sources import CodeSource
from lord_fast.evaluate.images import ImageMetrics, compare, pixels_of, psnr, summary
from lord_fast.evaluate.labels import combinations
from lord_fast.evaluate.probes import probe, probe_factor
from lord_fast.evaluate.splits import hold_out, stratified
from lord_fast.evaluate.transfer import class_sums, draw_pairs
from lord_fast.model.perceptual import VGG16

MAX_IMAGES = 5000
"""Images that reconstruction and probes look at; whole classes are drawn."""


def evaluate(codes: CodeSource, store: ImageStore, vgg: VGG16 | None, seed: int = 0) -> dict:
    """The content of metrics.json but for samples.

    Args:
        codes: Of the images of `store`.
        store: The images.
        vgg: Features for the perceptual distance; None: it is left out (null).
        seed: Of every draw and of the probes.
    """
    image_ids = draw_images(store, seed)
    return {
        "codes": codes.name,
        "step": codes.lord.step,
        "seed": seed,
        "store": {"images": store.num_images, "classes": store.num_classes},
        "images": len(image_ids),
        "reconstruction": _reconstruction(codes, store, image_ids, vgg, seed),
        **_probes(codes, store, image_ids, seed),
        "transfer": _transfer(codes, store, vgg, seed),
    }


def draw_images(store: ImageStore, seed: int) -> Tensor:
    """All images, or those of as many whole classes, drawn at random, as `MAX_IMAGES` hold."""
    counts = torch.bincount(store.class_ids, minlength=store.num_classes)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(store.num_classes))
    wanted = order[: max(2, int((counts[order].cumsum(0) <= MAX_IMAGES).sum()))]
    return torch.isin(store.class_ids, wanted).nonzero()[:, 0]


def _reconstruction(
    codes: CodeSource, store: ImageStore, ids: Tensor, vgg: VGG16 | None, seed: int
) -> dict:
    def images(positions: Tensor) -> Tensor:
        return codes.lord.decode(*codes(ids[positions])).cpu()

    return summary(compare(images, pixels_of(store, ids), len(ids), vgg), seed)


def _probes(codes: CodeSource, store: ImageStore, ids: Tensor, seed: int) -> dict:
    """Of the classes that have two images or more."""
    counts = torch.bincount(store.class_ids[ids], minlength=store.num_classes)
    ids = ids[counts[store.class_ids[ids]] > 1]
    probed = {
        "images": len(ids),
        "classes": int((counts > 1).sum()),
        "classes_of_one_image": int((counts == 1).sum()),
    }
    if probed["classes"] < 2:
        why = "fewer than two classes have two images or more"
        return {"probed": probed, **{of: {"missing": why} for of in ("leakage", "informativeness")}}
    return {"probed": probed, **_probe_each(codes, store, ids, seed)}


def _probe_each(codes: CodeSource, store: ImageStore, ids: Tensor, seed: int) -> dict:
    content, class_ = (part.cpu().numpy() for part in codes(ids))
    class_ids = store.class_ids[ids].numpy()
    at_random = stratified(class_ids, seed)
    held_out = hold_out(class_ids, combinations(store)[0][ids.numpy()], "contents", seed)
    factors = {
        name: store.content_ids[ids, column].numpy() for column, name in enumerate(store.factors)
    }

    def each_factor(part: np.ndarray) -> dict:
        return {name: probe_factor(part, k, class_ids, seed) for name, k in factors.items()}

    leakage = {"class_from_content": probe(content, class_ids, [held_out or at_random], seed)}
    if held_out:
        leakage["class_from_seen_content"] = probe(content, class_ids, [at_random], seed)
    return {
        "leakage": {**leakage, "content_from_class": each_factor(class_)},
        "informativeness": {
            "class_from_class": probe(class_, class_ids, [held_out or at_random], seed),
            "content_from_content": each_factor(content),
        },
    }


def _transfer(codes: CodeSource, store: ImageStore, vgg: VGG16 | None, seed: int) -> dict | None:
    pairs = draw_pairs(store, seed)
    if pairs is None:
        return None
    targets = pixels_of(store, pairs.target)
    sums, counts = class_sums(store)

    def transferred(positions: Tensor) -> Tensor:
        content, _ = codes(pairs.content[positions])
        _, class_ = codes(pairs.class_image[positions])
        return codes.lord.decode(content, class_).cpu()

    def class_mean(positions: Tensor) -> Tensor:
        """Of the class's other images: the target is what is to be guessed."""
        class_ = pairs.class_[positions]
        return (sums[class_] - targets(positions)) / (counts[class_] - 1).view(-1, 1, 1, 1)

    def baseline(images) -> ImageMetrics:
        return compare(images, targets, len(pairs.target), None)

    return {
        "pairs": len(pairs.target),
        **summary(compare(transferred, targets, len(pairs.target), vgg), seed),
        "class_mean_psnr": psnr(baseline(class_mean)),
        "copy_content_psnr": psnr(baseline(pixels_of(store, pairs.content))),
    }
