"""A penalty on what content codes tell about the class."""

import torch
from torch import Tensor

WIDTHS = (0.25, 0.5, 1.0, 2.0)
"""Widths of the kernels, as multiples of the mean squared distance of two codes."""


def class_discrepancy(content_code: Tensor, class_ids: Tensor) -> Tensor:
    """Measure how much more alike the content codes of a class are than those of two classes.

    It is an unbiased estimate of the squared maximum mean discrepancy between the codes of a class
    and all codes (Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, equation 3), averaged over
    the classes of the batch and divided by the share of pairs of two classes. It is 0 in
    expectation if the codes of every class have the same distribution, and may be negative. The
    kernel is the mean of Gaussian kernels of several widths.

    Args:
        content_code: Content codes with noise, float [B, content_dim].
        class_ids: Class of each image, int64 [B].

    Returns:
        Scalar. It is 0 if no two images of the batch share a class, or if all do.
    """
    codes = content_code.float()
    squares = codes.square().sum(1)
    distances = squares[:, None] + squares - 2 * codes @ codes.T
    alike = class_ids[:, None] == class_ids
    pairs = ~torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    scale = _mean(distances.detach(), pairs)
    kernel = torch.stack([torch.exp(-distances / (width * scale)) for width in WIDTHS]).mean(0)
    same, others = pairs & alike, ~alike
    both = same.any() & others.any()
    return torch.where(both, _mean(kernel, same) - _mean(kernel, others), 0.0)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Average the chosen values, or return 0 if there are none."""
    return (values * chosen).sum() / chosen.sum().clamp(min=1)
