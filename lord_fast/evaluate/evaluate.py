"""Measures reconstruction, leakage, informativeness and transfer."""

from collections.abc import Callable, Mapping
from dataclasses import asdict

import torch
from torch import Tensor

from lord_fast.data.content_labels import labels_are_shared
from lord_fast.data.store import ImageStore
from lord_fast.evaluate.code_sources import CodeSource
from lord_fast.evaluate.controls import pixel_code
from lord_fast.evaluate.draw import draw_images
from lord_fast.evaluate.field import measure_field
from lord_fast.evaluate.guesses import GroupMeans
from lord_fast.evaluate.images import Pictures, compare, pixels_of, psnr, read_reduced, summary
from lord_fast.evaluate.labels import clusters_of, combinations, numbers_of
from lord_fast.evaluate.lpips import Lpips
from lord_fast.evaluate.rate import content_rate
from lord_fast.evaluate.read_codes import Labels, probe_codes
from lord_fast.evaluate.regression import check_circular
from lord_fast.evaluate.transfer import measure_transfer
from lord_fast.progress import Parts, Progress, silent

PARTS = 4
"""Number of parts, which are reconstruction, probes, transfer, and samples or held-out leakage."""


def evaluate(
    codes: CodeSource,
    store: ImageStore,
    lpips: Lpips | None,
    seed: int = 0,
    progress: Progress = silent,
    circular: Mapping[str, float] | None = None,
    content_std: float = 0.0,
) -> dict:
    """Compute the content of metrics.json without the metrics of samples.

    Args:
        codes: Codes of the images of `store`.
        store: The images.
        lpips: The perceptual distance. With None it is null in the result.
        seed: Seed of the random draws and of the probes.
        progress: Called with the number of measured parts and of all parts. The caller measures the
            last part.
        circular: Period of each circular content factor.
        content_std: Standard deviation of the noise of content codes in training. With 0 the rate
            of the codes is null in the result.

    Raises:
        ValueError: A factor of `circular` does not exist or is not numeric.
    """
    circular = circular or {}
    check_circular(numbers_of(store), circular)

    def probe(ids: Tensor) -> dict:
        return _probe_each(codes, store, ids, seed, circular, content_std)

    part = Parts(progress, PARTS)
    image_ids = draw_images(store, seed)
    return {
        "codes": codes.name,
        "step": codes.lord.step,
        "seed": seed,
        "store": {"images": store.num_images, "classes": store.num_classes},
        "images": len(image_ids),
        "perceptual_is": None if lpips is None else lpips.name,
        "reconstruction": part(_reconstruction(codes, store, image_ids, lpips, seed)),
        **part(_probes(store, image_ids, probe)),
        "content_labels": _content_labels(store, seed),
        "transfer": part(measure_transfer(codes, store, lpips, seed)),
    }


def _content_labels(store: ImageStore, seed: int) -> dict | None:
    """Test whether content labels mean the same in every class. None if no classes share labels."""
    if not store.factors:
        return None
    ids = draw_images(store, seed)
    contents = combinations(store)[0][ids.numpy()]
    found = labels_are_shared(Pictures(store, ids), store.class_ids[ids].numpy(), contents, seed)
    return None if found is None else asdict(found)


def _reconstruction(
    codes: CodeSource, store: ImageStore, ids: Tensor, lpips: Lpips | None, seed: int
) -> dict:
    def images(positions: Tensor) -> Tensor:
        return codes.lord.decode(*codes(ids[positions])).cpu()

    found = compare(images, pixels_of(store, ids), len(ids), lpips)
    return {
        **summary(found, seed, clusters_of(store, ids)),
        "class_mean_psnr": _class_mean(store, ids),
    }


def _class_mean(store: ImageStore, ids: Tensor) -> float | None:
    """Return the PSNR of the mean of the other images of the class, the baseline in dB.

    Classes of one image are left out. None if there are no others.
    """
    several = torch.bincount(store.class_ids, minlength=store.num_classes) > 1
    ids = ids[several[store.class_ids[ids]]]
    if not len(ids):
        return None
    means, targets = GroupMeans(store, store.class_ids, store.class_ids[ids]), pixels_of(store, ids)

    def guess(positions: Tensor) -> Tensor:
        return means.without(targets(positions), store.class_ids[ids[positions]])

    return psnr(compare(guess, targets, len(ids), None))


def _probes(store: ImageStore, ids: Tensor, probe: Callable[[Tensor], dict]) -> dict:
    """Probe the codes of the classes that have at least two images."""
    drawn, ids = len(ids), of_several(store, ids)
    probed = {
        "images": len(ids),
        "classes": len(store.class_ids[ids].unique()),
        "classes_of_one_image": drawn - len(ids),
    }
    if probed["classes"] < 2:
        why = "fewer than two classes have two images or more"
        return {"probed": probed, **{of: {"missing": why} for of in ("leakage", "informativeness")}}
    return {"probed": probed, **probe(ids)}


def of_several(store: ImageStore, ids: Tensor) -> Tensor:
    """Return the images of `ids` whose class has at least two of them."""
    counts = torch.bincount(store.class_ids[ids], minlength=store.num_classes)
    return ids[counts[store.class_ids[ids]] > 1]


def _probe_each(
    codes: CodeSource,
    store: ImageStore,
    ids: Tensor,
    seed: int,
    circular: Mapping[str, float],
    content_std: float,
) -> dict:
    content, class_ = (part.cpu().numpy() for part in codes(ids))
    contents = combinations(store)[0][ids.numpy()]
    factors = {
        name: store.content_ids[ids, column].numpy() for column, name in enumerate(store.factors)
    }
    pixels = read_reduced(store, ids).flatten(1).numpy()
    numbers = {name: values[ids.numpy()] for name, values in numbers_of(store).items()}
    labels = Labels(store.class_ids[ids].numpy(), contents, factors, numbers)
    return {
        "content_rate": content_rate(content, labels.classes, contents, content_std),
        **probe_codes(content, class_, labels, seed, pixel_code(pixels, content.shape[1], seed)),
        **measure_field(content, class_, labels, seed, circular),
    }
