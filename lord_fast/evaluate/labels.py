"""Content labels of images, which relate images of different classes."""

import numpy as np
from torch import Tensor

from lord_fast.data.store import ImageStore
from lord_fast.evaluate.regression import numeric


def content_names(store: ImageStore) -> list[tuple]:
    """Return each image's content labels by name, because stores may number them differently."""
    names = [np.array(labels) for labels in store.factors.values()]
    columns = [labels[store.content_ids[:, i].numpy()].tolist() for i, labels in enumerate(names)]
    factors = tuple(store.factors)
    return [(factors, *row) for row in zip(*columns, strict=True)] or [()] * store.num_images


def numbers_of(store: ImageStore) -> dict[str, np.ndarray]:
    """Return the values of each numeric content factor by name, float64 [num_images] each."""
    values = {name: numeric(np.array(labels)) for name, labels in store.factors.items()}
    return {
        name: found[store.content_ids[:, column].numpy()]
        for column, (name, found) in enumerate(values.items())
        if found is not None
    }


def combinations(*stores: ImageStore) -> list[np.ndarray]:
    """Number the combinations of content labels consistently across stores.

    Returns:
        The number of each image's combination for each store, int64 [num_images]. It is the same
        for all images of a store without content labels.
    """
    numbers: dict[tuple, int] = {}
    return [
        np.array([numbers.setdefault(names, len(numbers)) for names in content_names(store)])
        for store in stores
    ]


def clusters_of(store: ImageStore, image_ids: Tensor) -> tuple[np.ndarray, ...]:
    """Return the clusters for intervals, which are classes and, if there are labels, contents."""
    classes = store.class_ids[image_ids].numpy()
    if not store.factors:
        return (classes,)
    return classes, combinations(store)[0][image_ids.numpy()]
