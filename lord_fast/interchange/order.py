"""Checks whether the images of a store are those that codes were trained on, in the same order."""

from pathlib import Path

import torch

from lord_fast.data.store import ImageStore, as_float
from lord_fast.lord import Lord

IMAGES = 256
"""Number of images that are compared."""


def order_of(run: Path, store: ImageStore) -> tuple[float, float]:
    """Reconstruct images of a store from the codes of the same numbers, and from shuffled codes.

    Args:
        run: A run with as many images as the store.
        store: The store.

    Returns:
        The PSNR of the reconstructions in dB, and that with shuffled codes. Both are alike if the
        codes belong to other images.
    """
    lord = Lord(run, stage="latent")
    generator = torch.Generator().manual_seed(0)
    ids = torch.randperm(store.num_images, generator=generator)[:IMAGES]
    images = as_float(store.images(ids))
    figures = []
    for of in (ids, ids[torch.randperm(len(ids), generator=generator)]):
        codes = lord.content_codes[of], lord.class_codes[store.class_ids[of]]
        made = lord.decode(*codes, stage="latent").cpu()
        figures.append(-10 * (made - images).square().mean().log10().item())
    return figures[0], figures[1]
