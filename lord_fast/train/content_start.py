"""Starts the content codes of stage 1 from statistics of the images.

Uniform codes are alike at first. Training then has to find which images of two classes have the
same content. Images of the same content often have similar statistics, whatever their class, so
codes made from them agree between classes from the first step.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from lord_fast.data.store import ImageStore, as_float
from lord_fast.model.image_statistics import COUNT, image_statistics
from lord_fast.model.latent import CHUNK_ROWS
from lord_fast.train.latent import LatentStage
from lord_fast.train.warm_start import set_codes

LARGEST = 2.0
"""Standard deviation of the first component of the codes. That of the noise is 1 by default."""
CHUNK = 512
"""Images that are measured at a time."""


def start_content(stage: LatentStage) -> str:
    """Add `statistics_codes` to the initial content codes of a new stage.

    Every process reads all images once.

    Args:
        stage: The stage before its first step.

    Returns:
        A line that says what was done.
    """
    codes = statistics_codes(stage.store, stage.config.model.content_dim)
    for shard, table in stage.contents.items():
        own = codes[shard :: stage.shards.count]
        for rows in torch.arange(len(own)).split(CHUNK_ROWS):
            start = table.codes(0, rows.to(stage.device)).cpu()
            start[:, : own.shape[1]] += own[rows]
            set_codes(table, start, rows)
    stage.is_warm = True
    return f"content codes from {codes.shape[1]} components of image statistics"


@torch.no_grad()
def statistics_codes(store: ImageStore, dim: int) -> Tensor:
    """Compute codes from the statistics of all images.

    These are the principal components of the statistics minus their mean in the class, each
    statistic divided by its standard deviation. All is computed on one thread of the CPU, so that
    the codes have the same bits with any number of processes.

    Args:
        store: The images.
        dim: Largest length of a code.

    Returns:
        float32 [N, min(dim, COUNT)], of which the first column has a standard deviation of
        `LARGEST`.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = torch.cat([
            image_statistics(as_float(store.images(ids).cpu()))  # They may lie on the GPU.
            for ids in torch.arange(store.num_images).split(CHUNK)
        ])  # fmt: skip
        return _components(_without_class(found, store), min(dim, COUNT))
    finally:
        torch.set_num_threads(threads)


def _without_class(found: Tensor, store: ImageStore) -> Tensor:
    """Subtract the mean of each class and divide by the standard deviations, in place."""
    sums = found.new_zeros(store.num_classes, found.shape[1], dtype=torch.float64)
    counts = torch.bincount(store.class_ids, minlength=store.num_classes)
    for part, classes in _parts(found, store):
        sums.index_add_(0, classes, part.double())
    means = (sums / counts[:, None]).float()
    for part, classes in _parts(found, store):
        part -= means[classes]
    return found.div_(found.std(0, correction=0).clamp(min=1e-6))


def _parts(found: Tensor, store: ImageStore) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(found.split(CHUNK_ROWS), store.class_ids.split(CHUNK_ROWS), strict=True)


def _components(found: Tensor, count: int) -> Tensor:
    """The first principal components. The largest element of each direction is positive."""
    covariance = sum(part.double().T @ part.double() for part in found.split(CHUNK_ROWS))
    directions = torch.linalg.eigh(covariance / len(found)).eigenvectors.flip(1)[:, :count]
    largest = directions.abs().argmax(0)
    directions = directions * directions[largest, torch.arange(count)].sign()
    codes = found @ directions.float()
    return codes.mul_(LARGEST / codes[:, 0].std(correction=0).clamp(min=1e-6))
