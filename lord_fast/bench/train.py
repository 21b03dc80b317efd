"""Some hundred steps of ours and of the published training: the same start, batches and noise."""

import torch

from lord_fast.bench.measure import Case, Row, rows_of
from lord_fast.bench.published import OURS, PublishedStep, curves
from lord_fast.bench.step import Setting

STEPS = 300
PUBLISHED, NUDGED = "published", "published, its start off by an ulp"


def train_rows(
    found: Setting, dtype: torch.dtype, steps: int = STEPS
) -> tuple[list[Row], dict[str, tuple[float, float]]]:
    """Ours, the published training, and the published one from a start that differs by rounding.

    The third has every parameter off by a unit in the last place of float32: how far it goes from
    the second is what no other order of summation can be expected to stay below.

    Args:
        found: What is trained.
        dtype: Type of the convolutions of ours.
        steps: How many.

    Returns:
        The times of the whole trainings, and by name the relative difference to the published
        training: the largest of a single loss, and that of the mean of the last 50.
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
