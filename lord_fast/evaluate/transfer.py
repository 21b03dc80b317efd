"""Measures transfer, which combines the class of one image with the content of another."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lord_fast.data.store import ImageStore
from lord_fast.evaluate.code_sources import CodeSource
from lord_fast.evaluate.guesses import Guesses, Images, Wanted, against_truth
from lord_fast.evaluate.images import pixels_of
from lord_fast.evaluate.labels import combinations
from lord_fast.evaluate.lpips import Lpips

MAX_PAIRS = 2000


@dataclass(frozen=True)
class Pairs:
    """Transfers for which the store holds the true image.

    Attributes:
        content: The image that gives the content, int64 [P].
        class_: The requested class, which is not the class of `content`, int64 [P].
        target: The true image with this class and content, int64 [P].
        class_image: Another image of the class, which gives the class, int64 [P].
    """

    content: Tensor
    class_: Tensor
    target: Tensor
    class_image: Tensor


def draw_pairs(store: ImageStore, seed: int, most: int = MAX_PAIRS) -> Pairs | None:
    """Draw pairs uniformly from all pairs of images with the same content and different classes.

    Classes with a single image are excluded, because only the target itself would show the class.

    Args:
        store: Images with content labels.
        seed: Seed of the random draw.
        most: Largest number of pairs.

    Returns:
        The pairs, or None if there are none.
    """
    if not store.factors:
        return None
    _, groups = np.unique(store.content_ids.numpy(), axis=0, return_inverse=True)
    groups = groups.reshape(-1)
    classes = store.class_ids.numpy()
    rng = np.random.default_rng(seed)
    by_group = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
    sizes = np.array([len(members) for members in by_group], dtype=np.float64)
    if sizes.max() < 2:
        return None
    pairs_of_group = sizes * (sizes - 1)
    share = pairs_of_group / pairs_of_group.sum()
    drawn = rng.choice(len(by_group), size=4 * most, p=share)
    pairs = {tuple(rng.choice(by_group[group], size=2, replace=False)) for group in drawn}
    several = np.bincount(classes)[classes] > 1
    kept = sorted((a, b) for a, b in pairs if classes[a] != classes[b] and several[b])
    if not kept:
        return None
    chosen = np.array(kept)[rng.permutation(len(kept))[:most]]
    content, target = torch.from_numpy(chosen).unbind(1)
    class_image = torch.from_numpy(_others(classes, chosen[:, 1], rng))
    return Pairs(content, store.class_ids[target], target, class_image)


def _others(classes: np.ndarray, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw another image of the same class for each image. The class must have at least two."""
    order = np.argsort(classes, kind="stable")
    counts = np.bincount(classes)
    first = np.cumsum(counts) - counts
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    count, start = counts[classes[images]], first[classes[images]]
    step = 1 + rng.integers(count - 1)
    return order[start + (place[images] - start + step) % count]


def measure_transfer(
    codes: CodeSource, store: ImageStore, lpips: Lpips | None, seed: int
) -> dict | None:
    """Compare transfers and baselines with the true images.

    Args:
        codes: Codes of the images of `store`.
        store: The images.
        lpips: The perceptual distance. With None it is null in the result.
        seed: Seed of the random draws.

    Returns:
        `transfer` of metrics.json, or None if no two classes share a content label.
    """
    pairs = draw_pairs(store, seed, MAX_PAIRS)
    if pairs is None:
        return None

    combination = combinations(store)[0][pairs.target.numpy()]
    wanted = Wanted(pairs.content, pairs.class_, combination, pairs.target)
    guesses, made = Guesses(store, codes, wanted, seed), transfers(codes, pairs)
    return against_truth(made, pixels_of(store, pairs.target), guesses, lpips, seed)


def transfers(codes: CodeSource, pairs: Pairs) -> Images:
    """Return a function of positions in `pairs` that generates their images."""

    def transferred(positions: Tensor) -> Tensor:
        content, _ = codes(pairs.content[positions])
        _, class_ = codes(pairs.class_image[positions])
        return codes.lord.decode(content, class_).cpu()

    return transferred
