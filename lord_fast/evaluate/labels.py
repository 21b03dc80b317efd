"""Content labels of images, by which images of different classes are compared."""

import numpy as np
from torch import Tensor

from lord_fast.data.store import ImageStore


def content_names(store: ImageStore) -> list[tuple]:
    """Each image's content labels, as names: two stores number them differently."""
    names = [np.array(labels) for labels in store.factors.values()]
    columns = [labels[store.content_ids[:, i].numpy()].tolist() for i, labels in enumerate(names)]
    factors = tuple(store.factors)
    return [(factors, *row) for row in zip(*columns, strict=True)] or [()] * store.num_images


def combinations(*stores: ImageStore) -> list[np.ndarray]:
    """Each image's content labels as one number, the same in all of `stores`.

    Returns:
        For each store int64 [num_images]; the same for all of its images where it has no labels.
    """
    numbers: dict[tuple, int] = {}
    return [
        np.array([numbers.setdefault(names, len(numbers)) for names in content_names(store)])
        for store in stores
    ]


def clusters_of(store: ImageStore, image_ids: Tensor) -> tuple[np.ndarray, ...]:
    """What the intervals of these images are drawn over: their classes, and their contents.

    Without content labels the classes alone.
    """
    classes = store.class_ids[image_ids].numpy()
    if not store.factors:
        return (classes,)
    return classes, combinations(store)[0][image_ids.numpy()]
