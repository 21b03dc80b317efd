"""Three hundred steps of ours and of the published training, from the same start."""

import torch
from torch import Tensor

from lord_fast.bench.published import PublishedStep, curves
from lord_fast.bench.step import Setting

CURVE_STEPS = 300


def curve_differences(found: Setting, steps: int = CURVE_STEPS) -> dict[str, float]:
    """Largest relative difference of the losses to the published step's.

    Same start, same batches, same noise. The published step against itself, its images off by a
    unit in the last place of float32, says what rounding alone does.
    """
    stage = found.stage(steps=steps)
    ours, published = curves(stage, PublishedStep.like(stage), steps)
    again = found.stage(steps=steps)
    nudged = PublishedStep.like(again)
    for parameter in nudged.model.parameters():
        parameter.data.mul_(1 + torch.finfo(torch.float32).eps)
    _, rounded = curves(again, nudged, steps)
    return {"ours": _difference(ours, published), "rounding": _difference(rounded, published)}


def _difference(a: Tensor, b: Tensor) -> float:
    return float(((a - b) / b).abs().max())
