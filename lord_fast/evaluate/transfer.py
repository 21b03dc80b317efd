"""Content transfer: the class of one image with the content of another, against the true image."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lord_fast.data.store import ImageStore
from lord_fast.evaluate.code_sources import CodeSource
from lord_fast.evaluate.guesses import Guesses, Wanted, against_truth
from lord_fast.evaluate.images import pixels_of
from lord_fast.evaluate.labels import combinations
from lord_fast.evaluate.lpips import Lpips

MAX_PAIRS = 2000


@dataclass(frozen=True)
class Pairs:
    """Transfers whose true image the store holds.

    Attributes:
        content: Image that gives the content, int64 [P].
        class_: Class that is wanted, int64 [P]; never the content image's own.
        target: The image of that class with that content, int64 [P].
        class_image: An image of that class to take the class from, int64 [P]; not the target.
    """

    content: Tensor
    class_: Tensor
    target: Tensor
    class_image: Tensor


def draw_pairs(store: ImageStore, seed: int, most: int = MAX_PAIRS) -> Pairs | None:
    """Draw pairs uniformly from all (image, other class with the same content labels).

    A class of one image is no target: nothing but the target itself would say what it looks like.

    Args:
        store: Images with content labels.
        seed: Of the draw.
        most: Number of pairs; fewer if there are fewer.

    Returns:
        The pairs; None where there are none.
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
    """For each of `images` another image of its class, which has at least two."""
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
    """Transfers against the true images, and what guesses without a generator reach.

    Args:
        codes: Of the images of `store`.
        store: The images.
        lpips: The perceptual distance; None: it is left out.
        seed: Of every draw.

    Returns:
        `transfer` of metrics.json; None where no two classes share a content label.
    """
    pairs = draw_pairs(store, seed, MAX_PAIRS)
    if pairs is None:
        return None

    def transferred(positions: Tensor) -> Tensor:
        content, _ = codes(pairs.content[positions])
        _, class_ = codes(pairs.class_image[positions])
        return codes.lord.decode(content, class_).cpu()

    combination = combinations(store)[0][pairs.target.numpy()]
    wanted = Wanted(pairs.content, pairs.class_, combination, pairs.target)
    guesses = Guesses(store, codes, wanted, seed)
    return against_truth(transferred, pixels_of(store, pairs.target), guesses, lpips, seed)
