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
    """Compute the learning rates of a run that was extended, once or several times.

    Finished steps keep their rates. Later steps have the rates of a run of the new length, so the
    rate rises once and decays to `end` again.

    Args:
        start: Rate at step 0.
        end: Rate after the last step.
        totals: All lengths of the run in steps, in increasing order.

    Returns:
        float32 [totals[-1]].

    Raises:
        ValueError: The lengths do not increase.
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


def warm_up(rates: Tensor, steps: int) -> Tensor:
    """Let the rates of the first steps rise linearly (Goyal et al., 2017, section 2.2).

    Args:
        rates: The rate of every step, [total_steps].
        steps: Number of steps until the rate is that of `rates`. 0 changes nothing.

    Returns:
        float32 [total_steps].
    """
    done = torch.arange(1, len(rates) + 1, dtype=torch.float64)
    return (rates * (done / max(1, steps)).clamp(max=1)).float()
