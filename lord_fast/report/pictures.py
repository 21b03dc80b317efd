"""Computes the pictures and values that a report shows when one points at them."""

import base64
import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.decomposition import PCA
from torch import Tensor

from lord_fast.data.store import ImageStore, as_float
from lord_fast.grid import to_pixels
from lord_fast.lord import Lord
from lord_fast.run.codes import Stage

CLASSES, CONTENTS = 12, 16
LARGEST_TILE = 64
POINTS = 400
"""Maximum number of points of the plot of content codes."""
SMALLEST_TILE = 32
"""Side in pixels of the picture of a point."""
CURVE_POINTS = 300
"""Maximum number of points of a curve."""
CURVES = ("reconstruction", "images_per_second", "lr")


def swaps(lord: Lord, store: ImageStore) -> dict:
    """Combine every class of a selection with every content of a selection.

    Returns:
        A dictionary with these keys. `classes` and `contents` are names. `errors` maps latent, and
        encoders if there is a stage 2, to the PSNR to the true image in dB, [classes][contents],
        or None if there is no true image. `pictures` maps latent, encoders, true, contents and
        classes to data URIs of the generated images of each stage, the true images, the content
        sources and the class sources.
    """
    class_ids, content_ids, truth = _choose(store)
    above, left = (
        as_float(store.images(ids)) for ids in (content_ids, class_sources(store, class_ids))
    )
    columns = len(content_ids)
    made = _swapped(lord, class_ids, content_ids, above, left)
    known = (truth >= 0).flatten()
    true = torch.ones_like(made["latent"])
    true[known] = as_float(store.images(truth.flatten()[known]))
    sheets = [("true", true), *made.items()]
    return {
        "classes": [store.class_names[i] for i in class_ids],
        "contents": [content_label(store, int(i)) for i in content_ids],
        "errors": {stage: _errors(images, true, known, columns) for stage, images in made.items()},
        "pictures": {
            **{name: data_uri(sprite(images, columns)) for name, images in sheets},
            "contents": data_uri(sprite(above, columns)),
            "classes": data_uri(sprite(left, len(class_ids))),
        },
    }


def _swapped(
    lord: Lord, class_ids: Tensor, content_ids: Tensor, above: Tensor, left: Tensor
) -> dict[Stage, Tensor]:
    """Generate all combinations with the codes of each stage, [classes * contents, C, H, W]."""
    codes: dict[Stage, tuple[Tensor, Tensor]] = {
        "latent": (lord.content_codes[content_ids], lord.class_codes[class_ids])
    }
    if lord.encoders is not None:
        codes["encoders"] = lord.encode(above)[0], lord.encode_class(left)
    return {
        stage: lord.decode(
            content.repeat(len(class_), 1), class_.repeat_interleave(len(content), 0), stage
        ).cpu()
        for stage, (content, class_) in codes.items()
    }


def _errors(made: Tensor, true: Tensor, known: Tensor, columns: int) -> list[list[float | None]]:
    mse = (made - true).square().mean((1, 2, 3)).clamp(min=1e-10)
    errors = [
        round(float(-10 * m.log10()), 2) if k else None for m, k in zip(mse, known, strict=True)
    ]
    return [errors[i : i + columns] for i in range(0, len(errors), columns)]


def plane(lord: Lord, store: ImageStore) -> dict:
    """Project the content codes of some images onto their first two principal axes.

    Returns:
        A dictionary with these keys. `points` is a list [POINTS][2]. `labels` maps each factor to
        one label per point, and `names` maps it to the names of these labels. `picture` is a data
        URI of the images in rows of `columns`.
    """
    drawn = np.random.default_rng(0).permutation(store.num_images)[:POINTS]
    codes = lord.content_codes.cpu().numpy()
    pca = PCA(min(2, codes.shape[1])).fit(codes)
    points = np.zeros((len(drawn), 2))
    points[:, : pca.n_components_] = pca.transform(codes[drawn])
    labels = {"class": store.class_ids.numpy()[drawn].tolist()}
    for column, name in enumerate(store.factors):
        labels[name] = store.content_ids[drawn, column].tolist()
    images = as_float(store.images(torch.from_numpy(drawn))).cpu()
    columns = min(20, len(drawn))
    blank = torch.zeros(-len(drawn) % columns, *images.shape[1:])
    return {
        "points": points.round(3).tolist(),
        "labels": labels,
        "names": {"class": store.class_names, **store.factors},
        "columns": columns,
        "picture": data_uri(sprite(torch.cat((images, blank)), columns, SMALLEST_TILE), 60),
    }


def curves(logged: list[dict]) -> dict[str, dict[str, list]]:
    """Return the values of each curve by stage, [POINTS][2] with the step first.

    Args:
        logged: The rows of stats.jsonl.
    """
    stages = dict.fromkeys(row["stage"] for row in logged)
    found: dict[str, dict[str, list]] = {}
    for name in CURVES:
        found[name] = {}
        for stage in stages:
            rows = [row for row in logged if row["stage"] == stage and name in row]
            rows = rows[:: -(-len(rows) // CURVE_POINTS) or 1]
            found[name][stage] = [[row["step"], float(f"{row[name]:.4g}")] for row in rows]
    return found


def class_sources(store: ImageStore, class_ids: Tensor) -> Tensor:
    """The first image of each class, int64 [len(class_ids)]."""
    return torch.stack([(store.class_ids == i).nonzero()[0, 0] for i in class_ids])


def content_label(store: ImageStore, image_id: int) -> str:
    """The content labels of an image, or its id if it has none."""
    values = [
        v[j] for v, j in zip(store.factors.values(), store.content_ids[image_id], strict=True)
    ]
    return ", ".join(values) or f"image {image_id}"


def sprite(images: Tensor, columns: int, largest: int = LARGEST_TILE) -> np.ndarray:
    """Tile images [N, C, H, W] without gaps in rows of `columns`, uint8 [height, width, 3].

    Args:
        images: The images, in [0, 1].
        columns: Number of images in a row, which divides N.
        largest: Larger images are scaled to this side in pixels.
    """
    if images.shape[-1] > largest:
        images = F.interpolate(images, largest, mode="area")
    pixels = np.stack([to_pixels(image) for image in images])
    rows = [np.concatenate(list(row), axis=1) for row in np.split(pixels, len(pixels) // columns)]
    return np.concatenate(rows)


def data_uri(pixels: np.ndarray, quality: int = 80) -> str:
    """Encode uint8 [H, W, 3 or 4] as a data URI of a WebP file. A fourth channel is opacity."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="WEBP", quality=quality, method=6)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


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
