"""Draws the pictures of a report that do not change when one points at them."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from torch import Tensor

from lord_fast.data.store import ImageStore, as_float
from lord_fast.grid import tile
from lord_fast.lord import Lord
from lord_fast.report.pictures import LARGEST_TILE, class_sources, data_uri

STEPS = 7
DIRECTIONS = 4
COLUMNS = 10
HELD_OUT_ROWS = 6
SAMPLE_ROWS = 3


def traversals(lord: Lord) -> str:
    """A picture with one principal direction of the content codes per row, for one class.

    Each row goes from -2 to 2 standard deviations around the mean.
    """
    codes = lord.content_codes.cpu()
    pca = PCA(min(DIRECTIONS, *codes.shape)).fit(codes.numpy())
    steps = torch.linspace(-2, 2, STEPS)
    lines = [
        codes.mean(0) + steps[:, None] * (torch.from_numpy(axis).float() * float(variance) ** 0.5)
        for axis, variance in zip(pca.components_, pca.explained_variance_, strict=True)
    ]
    class_ = lord.class_codes[:1].expand(len(lines) * STEPS, -1)
    return _rows(lord.decode(torch.cat(lines), class_, "latent"), STEPS)


def class_interpolations(lord: Lord, store: ImageStore) -> str:
    """A picture whose rows go from one class to another, each with the content of one image."""
    classes = torch.linspace(0, store.num_classes - 1, DIRECTIONS + 1).long().unique()
    lines = [
        lord.interpolate(lord.class_codes[a], lord.class_codes[b], STEPS)
        for a, b in itertools.pairwise(classes)
    ]
    content = lord.content_codes[class_sources(store, classes[:-1])]
    made = lord.decode(content.repeat_interleave(STEPS, 0), torch.cat(lines), "latent")
    return _rows(made, STEPS)


def reconstructions(lord: Lord, store: ImageStore) -> str:
    """A picture of some images, below them stage 1 and, if there is a stage 2, the encoders."""
    ids = _some_images(store, COLUMNS)
    images = as_float(store.images(ids)).cpu()
    codes = lord.content_codes[ids], lord.class_codes[store.class_ids[ids]]
    rows = [images, lord.decode(*codes, "latent").cpu()]
    if lord.encoders is not None:
        rows.append(lord.decode(*lord.encode(images), "encoders").cpu())
    return _rows(torch.cat(rows), len(ids))


def held_out(lord: Lord, store: ImageStore) -> str:
    """A swap grid of images that training has not seen, through the encoders."""
    order = torch.from_numpy(np.random.default_rng(0).permutation(store.num_images))
    rows = store.first_of_each_class(order, HELD_OUT_ROWS)
    columns = order[~torch.isin(order, rows)][: COLUMNS - 1]
    columns = columns if len(columns) else order[: COLUMNS - 1]
    above, left = (as_float(store.images(ids)).cpu() for ids in (columns, rows))
    made = [lord.translate(above, image[None]).cpu() for image in left]
    cells = [[image, *images] for image, images in zip(left, made, strict=True)]
    return framed([[None, *above], *cells], sources=True)


def samples(lord: Lord) -> str:
    """A picture of new images, with content from a density of the codes and classes of training."""
    return _rows(lord.sample(COLUMNS * SAMPLE_ROWS), COLUMNS)


def framed(rows: Sequence[Sequence[Tensor | None]], sources: bool = False) -> str:
    """Lay images out in a grid whose gaps are transparent, as a data URI."""
    small = [[None if image is None else _small(image) for image in row] for row in rows]
    black = [[None if image is None else image * 0 for image in row] for row in small]
    alpha = 255 - tile(black, sources)[..., :1]
    return data_uri(np.concatenate((tile(small, sources), alpha), axis=2))


def _rows(images: Tensor, columns: int) -> str:
    return framed([list(row) for row in images.cpu().split(columns)])


def _small(image: Tensor) -> Tensor:
    if image.shape[-1] <= LARGEST_TILE:
        return image
    return F.interpolate(image[None], LARGEST_TILE, mode="area")[0]


def _some_images(store: ImageStore, count: int) -> Tensor:
    """Draw images of as many classes as possible, int64 [at most count]."""
    order = torch.from_numpy(np.random.default_rng(0).permutation(store.num_images))
    first = store.first_of_each_class(order, count)
    return torch.cat((first, order[~torch.isin(order, first)]))[:count]
