"""A cache of the VGG16 features of all training images."""

from collections.abc import Iterable

import torch
from torch import Tensor

from lord_fast.memory import free_memory
from lord_fast.model.perceptual import VGG16

MOST_OF_MEMORY = 0.8
"""Maximum share of the free memory that the features may take."""


class FeatureCache:
    """The features of every image, computed once and kept in memory.

    The features have the dtype and layout that `vgg` returns. They can differ from features that
    are computed in another batch by rounding.

    Args:
        vgg: The network that computes the features.
        batches: All images in the order of their ids, [B, C, H, W] in [0, 1].
        num_images: Total number of images.

    Raises:
        ValueError: The features would take more than `MOST_OF_MEMORY` of the free memory.
    """

    @torch.no_grad()
    def __init__(self, vgg: VGG16, batches: Iterable[Tensor], num_images: int):
        self.maps: list[Tensor] = []
        row = 0
        for images in batches:
            found = [feature.permute(0, 2, 3, 1) for feature in vgg(images)]
            if not self.maps:
                _check_memory(found, num_images)
                self.maps = [feature.new_empty(num_images, *feature.shape[1:]) for feature in found]
            for kept, feature in zip(self.maps, found, strict=True):
                kept[row : row + len(feature)] = feature
            row += len(images)

    def __call__(self, image_ids: Tensor) -> list[Tensor]:
        """The feature maps of each tap for image ids, int64 [B].

        Returns:
            One tensor [B, C, H, W] per tap, in channels-last memory.
        """
        return [kept[image_ids].permute(0, 3, 1, 2) for kept in self.maps]


def _check_memory(found: list[Tensor], num_images: int) -> None:
    needed = num_images * sum(feature[0].nbytes for feature in found)
    free = free_memory(found[0].device)
    if needed > MOST_OF_MEMORY * free:
        raise ValueError(
            f"--cache-target-features on: the features of {num_images} images take "
            f"{needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free; use "
            f"--cache-target-features off, or fewer --perceptual-taps"
        )
