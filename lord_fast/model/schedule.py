"""The learning rate of every step."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor


def cosine(start: float, end: float, total_steps: int) -> Tensor:
    """Cosine decay from `start` at step 0 to `end` at `total_steps` (Loshchilov & Hutter, 2017).

    Returns:
        float32 [total_steps].
    """
    angle = torch.arange(total_steps, dtype=torch.float64) * (torch.pi / total_steps)
    return (end + (start - end) * (1 + torch.cos(angle)) / 2).float()


def extended_cosine(start: float, end: float, totals: Sequence[int]) -> Tensor:
    """The rates of a run that was made longer, once or several times.

    The steps that were done keep their rates. From there on a step has the rate that it has in a
    run of the new length, so that the rate rises once and falls to `end` again.

    Args:
        start: Rate at step 0.
        end: Rate after the last step.
        totals: Every length that the run had, in steps, increasing.

    Returns:
        float32 [totals[-1]].

    Raises:
        ValueError: the lengths do not increase.
    """
    if any(longer <= shorter for shorter, longer in itertools.pairwise(totals)):
        raise ValueError(
            f"--extended-from {' '.join(map(str, totals[:-1]))}: must increase, and end below the "
            f"{totals[-1]} steps of the run; training writes this option itself"
        )
    parts, done = [], 0
    for total in totals:
        parts.append(cosine(start, end, total)[done:])
        done = total
    return torch.cat(parts)
