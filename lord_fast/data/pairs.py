"""Finds the true image of a class and a content in a store."""

import torch
from torch import Tensor

from lord_fast.data.store import ImageStore


def true_images(store: ImageStore, class_ids: Tensor, image_ids: Tensor) -> Tensor:
    """Find the images of some classes that have the content labels of some images.

    Args:
        store: The store.
        class_ids: int64 [K].
        image_ids: Images whose contents are wanted, int64 [N].

    Returns:
        Image ids, int64 [K, N]. -1 means that there is no such image.
    """
    found = torch.full((len(class_ids), len(image_ids)), -1)
    if not store.factors:
        return found
    wanted = [tuple(labels) for labels in store.content_ids[image_ids].tolist()]
    for row, class_id in enumerate(class_ids.tolist()):
        members = (store.class_ids == class_id).nonzero()[:, 0]
        labels = map(tuple, store.content_ids[members].tolist())
        image_of = dict(zip(labels, members.tolist(), strict=True))
        found[row] = torch.tensor([image_of.get(each, -1) for each in wanted])
    return found
