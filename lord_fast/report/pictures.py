"""Draws swaps, traversals, interpolations and a plot of the content codes for a report."""

import base64
import io
import itertools

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.decomposition import PCA
from torch import Tensor

from lord_fast.data.store import ImageStore, as_float
from lord_fast.grid import tile, to_pixels
from lord_fast.lord import Lord

CLASSES, CONTENTS = 12, 16
LARGEST_TILE = 64
STEPS = 7
DIRECTIONS = 4
POINTS = 600
MOST_LABELS = 20
"""Maximum number of labels with a colour each. Factors with more labels get a colour ramp."""


def swaps(lord: Lord, store: ImageStore) -> dict:
    """Combine every class of a selection with every content of a selection.

    Returns:
        A dictionary with these keys. `classes` and `contents` are names. `side` is the side of a
        tile in pixels. `errors` is the PSNR to the true image in dB, [classes][contents], or None
        if there is no true image. `pictures` maps made, true, contents and classes to data URIs of
        the generated images, the true images, the content sources and the class sources.
    """
    class_ids, content_ids, truth = _choose(store)
    sources = [
        as_float(store.images(ids)) for ids in (content_ids, class_sources(store, class_ids))
    ]
    content, class_ = lord.content_codes[content_ids], lord.class_codes[class_ids]
    made = torch.cat([lord.decode(content, code.expand(len(content), -1)).cpu() for code in class_])
    known = (truth >= 0).flatten()
    true = torch.ones_like(made)
    true[known] = as_float(store.images(truth.flatten()[known]))
    mse = (made - true).square().mean((1, 2, 3)).clamp(min=1e-10)
    errors = [
        round(float(-10 * m.log10()), 2) if k else None for m, k in zip(mse, known, strict=True)
    ]
    columns = len(content_ids)
    return {
        "side": min(store.size, LARGEST_TILE),
        "classes": [store.class_names[i] for i in class_ids],
        "contents": [content_label(store, int(i)) for i in content_ids],
        "errors": [errors[i : i + columns] for i in range(0, len(errors), columns)],
        "pictures": {
            "made": picture(sprite(made, columns)),
            "true": picture(sprite(true, columns)),
            "contents": picture(sprite(sources[0], columns)),
            "classes": picture(sprite(sources[1], len(class_ids))),
        },
    }


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
    return _strips(lord, torch.cat(lines), lord.class_codes[:1].expand(len(lines) * STEPS, -1))


def class_interpolations(lord: Lord, store: ImageStore) -> str:
    """A picture whose rows go from one class to another, each with the content of one image."""
    classes = torch.linspace(0, store.num_classes - 1, DIRECTIONS + 1).long().unique()
    lines = [
        lord.interpolate(lord.class_codes[a], lord.class_codes[b], STEPS)
        for a, b in itertools.pairwise(classes)
    ]
    content = lord.content_codes[class_sources(store, classes[:-1])]
    return _strips(lord, content.repeat_interleave(STEPS, 0), torch.cat(lines))


def plane(lord: Lord, store: ImageStore) -> dict:
    """Project the content codes of some images onto their first two principal axes.

    Returns:
        A dictionary with these keys. `points` is a list [POINTS][2]. `labels` maps each factor to
        one label per point. `ramps` maps each factor with more than `MOST_LABELS` labels to their
        number.
    """
    drawn = np.random.default_rng(0).permutation(store.num_images)[:POINTS]
    codes = lord.content_codes.cpu().numpy()
    pca = PCA(min(2, codes.shape[1])).fit(codes)
    points = np.zeros((len(drawn), 2))
    points[:, : pca.n_components_] = pca.transform(codes[drawn])
    labels = {"class": store.class_ids.numpy()[drawn].tolist()}
    for column, name in enumerate(store.factors):
        labels[name] = store.content_ids[drawn, column].tolist()
    ramps = {name: len(values) for name, values in store.factors.items()}
    ramps = {name: count for name, count in ramps.items() if count > MOST_LABELS}
    return {"points": points.round(3).tolist(), "labels": labels, "ramps": ramps}


def class_sources(store: ImageStore, class_ids: Tensor) -> Tensor:
    """The first image of each class, int64 [len(class_ids)]."""
    return torch.stack([(store.class_ids == i).nonzero()[0, 0] for i in class_ids])


def content_label(store: ImageStore, image_id: int) -> str:
    """The content labels of an image, or its id if it has none."""
    values = [
        v[j] for v, j in zip(store.factors.values(), store.content_ids[image_id], strict=True)
    ]
    return ", ".join(values) or f"image {image_id}"


def sprite(images: Tensor, columns: int) -> np.ndarray:
    """Tile images [N, C, H, W] without gaps in rows of `columns`, uint8 [height, width, 3]."""
    if images.shape[-1] > LARGEST_TILE:
        images = F.interpolate(images, LARGEST_TILE, mode="area")
    pixels = np.stack([to_pixels(image) for image in images])
    rows = [np.concatenate(list(row), axis=1) for row in np.split(pixels, len(pixels) // columns)]
    return np.concatenate(rows)


def picture(pixels: np.ndarray) -> str:
    """Encode uint8 [H, W, 3] as a data URI."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="WEBP", quality=80, method=6)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def _strips(lord: Lord, content: Tensor, class_: Tensor) -> str:
    images = lord.decode(content, class_).cpu()
    if images.shape[-1] > LARGEST_TILE:
        images = F.interpolate(images, LARGEST_TILE, mode="area")
    return picture(tile([list(row) for row in images.split(STEPS)], sources=False))


def _choose(store: ImageStore) -> tuple[Tensor, Tensor, Tensor]:
    """Select classes and images that give contents, and look up the true image of each pair.

    Contents that many of the classes have are preferred. The true image is -1 if there is none.
    """
    rng = np.random.default_rng(0)
    classes = np.sort(rng.permutation(store.num_classes)[:CLASSES])
    if not store.factors:
        images = np.sort(rng.permutation(store.num_images)[:CONTENTS])
        truth = np.full((len(classes), len(images)), -1)
        return torch.from_numpy(classes), torch.from_numpy(images), torch.from_numpy(truth)
    _, groups = np.unique(store.content_ids.numpy(), axis=0, return_inverse=True)
    groups = groups.reshape(-1)
    image_of = {
        (c, g): i for i, (c, g) in enumerate(zip(store.class_ids.tolist(), groups, strict=True))
    }
    order = rng.permutation(groups.max() + 1)
    shared = np.array([sum((c, g) in image_of for c in classes) for g in order])
    chosen = np.sort(order[np.argsort(-shared, kind="stable")][:CONTENTS])
    members = [np.flatnonzero(groups == g) for g in chosen]
    images = np.array([rng.choice(ids) for ids in members])
    truth = np.array([[image_of.get((c, g), -1) for g in chosen] for c in classes])
    return torch.from_numpy(classes), torch.from_numpy(images), torch.from_numpy(truth)
