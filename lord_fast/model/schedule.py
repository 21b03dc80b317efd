"""The learning rate of every step."""

import torch
from torch import Tensor


def cosine(start: float, end: float, total_steps: int) -> Tensor:
    """Cosine decay from `start` at step 0 to `end` at `total_steps` (Loshchilov & Hutter, 2017).

    Returns:
        float32 [total_steps].
    """
    angle = torch.arange(total_steps, dtype=torch.float64) * (torch.pi / total_steps)
    return (end + (start - end) * (1 + torch.cos(angle)) / 2).float()
