"""Compares lord-fast's training with the published training over some hundred steps.

Both start from the same parameters and use the same batches and noise.
"""

import torch

from lord_fast.bench.measure import Case, Row, rows_of
from lord_fast.bench.published import OURS, PublishedStep, curves
from lord_fast.bench.step import Setting

STEPS = 300
PUBLISHED, NUDGED = "published", "published, its start off by an ulp"


def train_rows(
    found: Setting, dtype: torch.dtype, steps: int = STEPS
) -> tuple[list[Row], dict[str, tuple[float, float]]]:
    """Train with lord-fast, with the published step, and with the published step perturbed.

    The perturbed training starts with every parameter scaled by 1 + the machine epsilon of float32.
    Its difference to the published training shows the effect of rounding. Another order of
    summation cannot be expected to have a smaller effect.

    Args:
        found: The data and the configuration.
        dtype: dtype of the convolutions of lord-fast's step.
        steps: Number of steps.

    Returns:
        The total time of each training, and two relative differences to the published training by
        name. The first is the largest difference of a single loss, the second the difference of the
        mean loss of the last 50 steps.
    """
    stage = found.stage(dtype, steps=steps)
    nudged = PublishedStep.like(stage)
    for parameter in nudged.model.parameters():
        parameter.data.mul_(1 + torch.finfo(torch.float32).eps)
    trained = curves(stage, {PUBLISHED: PublishedStep.like(stage), NUDGED: nudged}, steps)
    params = {"steps": steps, "B": stage.batch_size}
    group = f"{steps} steps, B={stage.batch_size}, ours in {str(dtype).removeprefix('torch.')}"
    order = (PUBLISHED, OURS, NUDGED)
    cases = [Case(group, name, params, lambda: lambda: None) for name in order]
    rows = rows_of(cases, [[trained.seconds[name]] for name in order])
    return rows, {
        name: (trained.difference(name, PUBLISHED), trained.drift(name, PUBLISHED))
        for name in (OURS, NUDGED)
    }
