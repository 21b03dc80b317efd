"""Baselines of transfer, which guess an image of a class with a content without a generator."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lord_fast.data.store import ImageStore, as_float
from lord_fast.evaluate.code_sources import CodeSource
from lord_fast.evaluate.images import compare, pixels_of, summary
from lord_fast.evaluate.labels import combinations
from lord_fast.evaluate.lpips import Lpips
from lord_fast.system import INFERENCE_BATCH

MOST_CANDIDATES = 200
"""Largest number of images of a class that retrieval chooses from."""

Images = Callable[[Tensor], Tensor]
"""Takes positions int64 [B] and returns images [B, C, H, W] in [0, 1]."""


@dataclass(frozen=True)
class Wanted:
    """The requested images, with the ids of the store that guesses are made from.

    Attributes:
        content: The image that gives the content, int64 [P].
        class_: The requested class, int64 [P].
        combination: The requested content labels as one number, int64 [P].
        target: The true image, which guesses must not use, int64 [P]. None if the store does not
            hold the true images.
    """

    content: Tensor
    class_: Tensor
    combination: np.ndarray
    target: Tensor | None


class Guesses:
    """Guesses images from the images of a store without using the true image.

    Args:
        store: The images.
        codes: Codes of these images.
        wanted: The requested images.
        seed: Seed of the candidates of retrieval.
    """

    def __init__(self, store: ImageStore, codes: CodeSource, wanted: Wanted, seed: int):
        self.store, self.codes, self.wanted = store, codes, wanted
        contents, asked = combinations(store)[0], torch.from_numpy(wanted.combination)
        self._classes = GroupMeans(store, store.class_ids, wanted.class_)
        self._contents = GroupMeans(store, torch.from_numpy(contents), asked)
        self._nearest = self._retrieve(seed)

    def all(self) -> dict[str, Images]:
        """Return all kinds of guesses by name."""
        return {
            "class_mean": self.class_mean,
            "copy_content": pixels_of(self.store, self.wanted.content),
            "additive": self.additive,
            "retrieval": pixels_of(self.store, self._nearest),
        }

    def class_mean(self, positions: Tensor) -> Tensor:
        """Guess the mean of the other images of the requested class."""
        return self._classes.without(self._targets(positions), self.wanted.class_[positions])

    def additive(self, positions: Tensor) -> Tensor:
        """Guess the class mean plus the content mean minus the mean of all images."""
        combination = torch.from_numpy(self.wanted.combination)[positions]
        targets = self._targets(positions)
        overall = self._classes.without_of_all(targets)
        content = self._contents.without(targets, combination)
        return (self.class_mean(positions) + content - overall).clamp(0, 1)

    def _targets(self, positions: Tensor) -> Tensor | None:
        if self.wanted.target is None:
            return None
        return as_float(self.store.images(self.wanted.target[positions]))

    def _retrieve(self, seed: int) -> Tensor:
        """Return the image of the requested class with the nearest content code, int64 [P]."""
        sources, places = self.wanted.content.unique(return_inverse=True)
        codes = self.codes(sources)[0][places]
        found = torch.empty_like(self.wanted.content)
        generator = torch.Generator().manual_seed(seed)
        for class_id in self.wanted.class_.unique():
            pairs = (self.wanted.class_ == class_id).nonzero()[:, 0]
            members = (self.store.class_ids == class_id).nonzero()[:, 0]
            members = members[torch.randperm(len(members), generator=generator)[:MOST_CANDIDATES]]
            distances = torch.cdist(codes[pairs], self.codes(members)[0])
            if self.wanted.target is not None:
                own = members[None] == self.wanted.target[pairs][:, None]
                distances = distances.masked_fill(own.to(distances.device), torch.inf)
            found[pairs] = members[distances.argmin(1).cpu()]
        return found


class GroupMeans:
    """Means of the images of groups, with or without one of the images.

    Args:
        store: The images.
        groups: Group of each image of the store, int64 [num_images].
        asked: The groups whose means are needed, int64 [any].
    """

    def __init__(self, store: ImageStore, groups: Tensor, asked: Tensor):
        shape = (store.channels, store.size, store.size)
        self.asked = asked.unique()  # The means of all contents may not fit in memory.
        self.sums, self.total = torch.zeros(len(self.asked), *shape), torch.zeros(shape)
        for image_ids in torch.arange(store.num_images).split(INFERENCE_BATCH):
            images, members = as_float(store.images(image_ids)), groups[image_ids]
            self.total += images.sum(0)
            kept = torch.isin(members, self.asked)
            self.sums.index_add_(0, torch.searchsorted(self.asked, members[kept]), images[kept])
        self.counts = torch.bincount(groups)[self.asked]
        self.num_images = store.num_images

    def without(self, targets: Tensor | None, groups: Tensor) -> Tensor:
        """Return the mean of each group without its target."""
        places = torch.searchsorted(self.asked, groups)
        sums, counts = self.sums[places], self.counts[places]
        if targets is not None:
            sums, counts = sums - targets, counts - 1
        return sums / counts.view(-1, 1, 1, 1)

    def without_of_all(self, targets: Tensor | None) -> Tensor:
        """Return the mean of all images without the target."""
        if targets is None:
            return self.total / self.num_images
        return (self.total - targets) / (self.num_images - 1)


def against_truth(
    made: Images, targets: Images, guesses: Guesses, lpips: Lpips | None, seed: int
) -> dict:
    """Compare generated images and guesses with the true images, for `transfer` of metrics.json.

    Args:
        made: Images that the model generated.
        targets: The true images.
        guesses: The baselines.
        lpips: The perceptual distance. With None it is null in the result.
        seed: Seed of the intervals.
    """
    wanted = guesses.wanted
    count, clusters = len(wanted.content), (wanted.class_.numpy(), wanted.combination)

    def measured(images: Images) -> dict:
        return summary(compare(images, targets, count, lpips), seed, clusters)

    baselines = {name: measured(images) for name, images in guesses.all().items()}
    return {
        "pairs": count,
        **measured(made),
        "class_mean_psnr": baselines["class_mean"]["psnr"],
        "copy_content_psnr": baselines["copy_content"]["psnr"],
        "baselines": baselines,
    }
