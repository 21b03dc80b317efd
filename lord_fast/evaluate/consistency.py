"""Measures the class of swaps by a classifier that was trained on real images.

This is the only measure of transfer that needs no true image, and so no content labels.
"""

import numpy as np
import torch
from torch import Tensor

from lord_fast.data.store import ImageStore, as_float
from lord_fast.evaluate.bootstrap import interval
from lord_fast.evaluate.classifier import classify, train_classifier
from lord_fast.evaluate.code_sources import CodeSource
from lord_fast.evaluate.draw import draw_images
from lord_fast.evaluate.images import read_reduced, reduced
from lord_fast.evaluate.labels import clusters_of, combinations
from lord_fast.evaluate.splits import class_split
from lord_fast.system import INFERENCE_BATCH

MOST_IMAGES = 2000
"""Largest number of real images to train on and to score, see `draw_images`."""
MOST_SWAPS = 500


def class_consistency(
    codes: CodeSource, store: ImageStore, seed: int, trained: ImageStore | None = None
) -> dict:
    """Measure how often swaps have the requested class according to a classifier of real images.

    A swap combines the content of an image that the classifier was not trained on with the class
    of an image of another class. The swaps are compared with the real images that give the
    contents, on which the classifier's accuracy is the ceiling.

    Args:
        codes: Codes of the images of `store`.
        store: The images.
        seed: Seed of the draws and of the classifier.
        trained: Store to train the classifier on, which has other images. By default, or if it
            lacks a class of `store`, the images of `store` are split.

    Returns:
        `swaps` (the fraction of swaps with the requested class) with its 95 % `interval`,
        `content_class` (the fraction with the class of the content image), `reconstructions` and
        `real` (the accuracy on these), and `chance`. The result is `missing` if there are fewer
        than two classes to train on and to score.
    """
    if trained is not None and not set(store.class_names) <= set(trained.class_names):
        trained = None
    drawn = _draw(store, seed) if trained is None else _across(store, trained, seed)
    if isinstance(drawn, str):
        return {"missing": drawn}
    source, learnt, labels, scored, how = drawn
    if len(store.class_ids[scored].unique()) < 2:
        return {"missing": "the images to score are of one class"}
    classes, compact = torch.unique(labels, return_inverse=True)
    network = train_classifier(read_reduced(source, learnt), compact, len(classes), seed)

    def classes_of(images: Tensor) -> Tensor:
        return classes[classify(network, reduced(images))]

    numbers = _numbers(store, source)
    wanted = torch.from_numpy(_other_classes(store.class_ids[scored].numpy(), seed))
    own = numbers[store.class_ids[scored]]
    content, class_ = codes(scored)
    found = {
        "real": _batched(lambda at: classes_of(as_float(store.images(scored[at]))), len(scored)),
        "reconstructions": _batched(
            lambda at: classes_of(codes.lord.decode(content[at], class_[at]).cpu()), len(scored)
        ),
        "swaps": _batched(
            lambda at: classes_of(codes.lord.decode(content[at], class_[wanted[at]]).cpu()),
            len(scored),
        ),
    }
    right = (found["swaps"] == own[wanted]).double()
    requested = store.class_ids[scored[wanted]].numpy()
    clusters = (requested, *clusters_of(store, scored)[1:])
    counts = torch.bincount(own[wanted])
    return {
        "swaps": float(right.mean()),
        "interval": interval(right.numpy(), seed, clusters),
        "content_class": float((found["swaps"] == own).double().mean()),
        "reconstructions": float((found["reconstructions"] == own).double().mean()),
        "chance": float(counts.max() / len(scored)),
        "classes": len(classes),
        "scored_on": len(scored),
        "real": {
            "accuracy": float((found["real"] == own).double().mean()),
            "trained_on": len(learnt),
            "split": how,
        },
    }


Drawn = tuple[ImageStore, Tensor, Tensor, Tensor, str]
"""The store to train on, its images and their classes, the images to score, and how they differ."""


def _draw(store: ImageStore, seed: int) -> Drawn | str:
    """Split the images of one store, with contents held out if classes share them."""
    counts = torch.bincount(store.class_ids, minlength=store.num_classes)
    several = torch.nonzero(counts > 1)[:, 0]
    if len(several) < 2:
        return "fewer than two classes have two images or more"
    ids = draw_images(store, seed, MOST_IMAGES, several.numpy())
    labels = store.class_ids[ids].numpy()
    contents = combinations(store)[0][ids.numpy()]
    split = class_split(labels, contents, seed)
    learnt, scored = (ids[torch.from_numpy(part)] for part in (split.train, split.test))
    return store, learnt, store.class_ids[learnt], _some(scored, seed), split.how


def _across(store: ImageStore, trained: ImageStore, seed: int) -> Drawn | str:
    """Train on the images of one store and score those of another."""
    numbers = _numbers(store, trained)
    learnt = draw_images(trained, seed, MOST_IMAGES, numbers.numpy())
    labels = trained.class_ids[learnt]
    kept = torch.isin(numbers[store.class_ids], labels).nonzero()[:, 0]
    if len(torch.unique(store.class_ids[kept])) < 2:
        return "fewer than two classes have images in both stores"
    return trained, learnt, labels, _some(kept, seed), "other images of the run's store"


def _numbers(store: ImageStore, source: ImageStore) -> Tensor:
    """Return the number of each class of `store` among those of `source`, int64 [num_classes]."""
    known = {name: number for number, name in enumerate(source.class_names)}
    return torch.tensor([known[name] for name in store.class_names])


def _some(ids: Tensor, seed: int) -> Tensor:
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(ids)))
    return ids[order[:MOST_SWAPS]].sort().values


def _other_classes(classes: np.ndarray, seed: int) -> np.ndarray:
    """Draw for each image the position of an image of another class, int64 [N]."""
    rng = np.random.default_rng(seed)
    return np.array([rng.choice(np.flatnonzero(classes != own)) for own in classes])


def _batched(classes_at, count: int) -> Tensor:
    return torch.cat([classes_at(at) for at in torch.arange(count).split(INFERENCE_BATCH)])
