"""Measures the figures that matter most in a few seconds, for curves over training."""

from dataclasses import dataclass

from lord_fast.data.store import ImageStore
from lord_fast.evaluate.code_sources import CodeSource
from lord_fast.evaluate.draw import draw_images
from lord_fast.evaluate.evaluate import of_several
from lord_fast.evaluate.images import compare, pixels_of, psnr
from lord_fast.evaluate.labels import combinations
from lord_fast.evaluate.lpips import Lpips
from lord_fast.evaluate.probes import probe
from lord_fast.evaluate.splits import held_out_contents, stratified
from lord_fast.evaluate.transfer import draw_pairs, transfers


@dataclass(frozen=True)
class Figures:
    """Figures of metrics.json, measured on the same images, pairs and splits as there.

    Attributes:
        transfer: transfer.psnr in dB.
        perceptual: transfer.perceptual, or None without weights.
        leakage: leakage.class_from_content.accuracy, of the linear probe.
        leakage_mlp: leakage.class_from_content.mlp_accuracy.
        chance: leakage.class_from_content.chance.
    """

    transfer: float
    perceptual: float | None
    leakage: float
    leakage_mlp: float
    chance: float


def check_measurable(store: ImageStore, seed: int = 0) -> None:
    """Check that transfer can be measured.

    Raises:
        ValueError: No two classes share a content label.
    """
    if draw_pairs(store, seed) is None:
        raise ValueError(
            f"{store.path}: no content label is shared by two classes, so transfer cannot be "
            f"measured; pack again with --content-labels stem or --content-pattern"
        )


def measure_quick(
    codes: CodeSource, store: ImageStore, lpips: Lpips | None, seed: int = 0
) -> Figures:
    """Measure transfer and leakage without baselines, controls and intervals.

    Args:
        codes: Codes of the images of `store`.
        store: Images that pass `check_measurable`.
        lpips: The perceptual distance, or None.
        seed: Seed of the random draws and of the probes.
    """
    pairs = draw_pairs(store, seed)
    assert pairs is not None
    made, targets = transfers(codes, pairs), pixels_of(store, pairs.target)
    transfer = compare(made, targets, len(pairs.target), lpips)
    perceptual = transfer.get("perceptual")
    read = _leakage(codes, store, seed)
    return Figures(
        transfer=psnr(transfer),
        perceptual=None if perceptual is None else float(perceptual.mean()),
        leakage=read["accuracy"],
        leakage_mlp=read["mlp_accuracy"],
        chance=read["chance"],
    )


def _leakage(codes: CodeSource, store: ImageStore, seed: int) -> dict:
    ids = of_several(store, draw_images(store, seed))
    classes, contents = store.class_ids[ids].numpy(), combinations(store)[0][ids.numpy()]
    splits = held_out_contents(classes, contents, seed) or [stratified(classes, seed)]
    return probe(codes(ids)[0].cpu().numpy(), classes, splits, seed)
