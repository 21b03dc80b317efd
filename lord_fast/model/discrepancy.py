"""A penalty on content codes that tell the class."""

import torch
from torch import Tensor, nn

MOST_REMEMBERED = 4096
"""Largest number of codes in the memory, unless a batch has more."""
WIDTHS = (2.0, 1.0, 0.5, 0.25)
"""Widths of the kernels, as multiples of the mean squared distance of two codes. Each is half of
the one before."""
_EMPTY = -1


class ClassDiscrepancy(nn.Module):
    """Measures how much more alike the content codes of a class are than those of two classes.

    The codes of a batch are compared with the last codes of all images, which earlier batches left
    in a memory (cross-batch memory, Wang et al., CVPR 2020). So the classes need not meet in a
    batch. Codes in the memory are constants.

    The result is an unbiased estimate of the squared maximum mean discrepancy between the codes of
    a class and those of the other classes, without the term that does not involve the class's codes
    (Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, equation 3). It is 0 in expectation if
    the codes of every class have the same distribution, and may be negative. The kernel is the mean
    of Gaussian kernels of several widths.

    Args:
        num_images: Number of images of the store.
        batch_size: Images per step.
        dim: Length of a code.
    """

    codes: Tensor
    class_ids: Tensor
    image_ids: Tensor

    def __init__(self, num_images: int, batch_size: int, dim: int):
        super().__init__()
        size = min(num_images, max(MOST_REMEMBERED, batch_size))
        self.register_buffer("codes", torch.zeros(size, dim))
        self.register_buffer("class_ids", torch.full((size,), _EMPTY))
        self.register_buffer("image_ids", torch.full((size,), _EMPTY))

    @torch.no_grad()
    def remember(self, codes: Tensor, class_ids: Tensor, image_ids: Tensor, step: Tensor) -> None:
        """Replace the oldest codes of the memory by those of a batch.

        Args:
            codes: Codes without noise, float [B, dim].
            class_ids: int64 [B].
            image_ids: int64 [B].
            step: Number of completed steps, int64 scalar.
        """
        batch = len(codes)
        places = (step * batch + torch.arange(batch, device=codes.device)) % len(self.codes)
        self.codes.index_copy_(0, places, codes.to(self.codes.dtype))
        self.class_ids.index_copy_(0, places, class_ids)
        self.image_ids.index_copy_(0, places, image_ids)

    def forward(self, codes: Tensor, class_ids: Tensor, image_ids: Tensor) -> Tensor:
        """Compare the codes of a batch with the memory.

        Args:
            codes: Codes without noise, float [B, dim].
            class_ids: int64 [B].
            image_ids: int64 [B]. An image is not compared with itself.

        Returns:
            Mean over the batch, scalar. An image counts as 0 while the memory lacks another image
            of its class or an image of another class.
        """
        distances = _squared_distances(codes.to(self.codes.dtype), self.codes)
        valid = (self.image_ids != _EMPTY) & (image_ids[:, None] != self.image_ids)
        kernel = _kernel(distances, self._scale())
        same = class_ids[:, None] == self.class_ids
        alike, others = valid & same, valid & ~same
        excess = _mean(kernel, alike) - _mean(kernel, others)
        return torch.where(alike.any(1) & others.any(1), excess, 0.0).mean()

    def _scale(self) -> Tensor:
        """Return the mean squared distance of two codes of the memory.

        It does not involve the batch, because each virtual rank compares a part of it.
        """
        valid = (self.image_ids != _EMPTY)[:, None]
        count = valid.sum()
        mean = (self.codes * valid).sum(0) / count.clamp(min=1)
        return 2 * ((self.codes - mean).square() * valid).sum() / (count - 1).clamp(min=1)


def _squared_distances(one: Tensor, other: Tensor) -> Tensor:
    """Return the distances of all pairs. Rounding would make some of them negative."""
    squares = one.square().sum(1)[:, None] + other.square().sum(1)
    return (squares - 2 * one @ other.T).clamp(min=0)


def _kernel(distances: Tensor, scale: Tensor) -> Tensor:
    """Average the Gaussian kernels. The square of a kernel is the kernel of half the width."""
    kernel = torch.exp(distances / (-WIDTHS[0] * scale.clamp(min=torch.finfo().tiny)))
    total = kernel
    for _ in WIDTHS[1:]:
        kernel = kernel.square()
        total = total + kernel
    return total / len(WIDTHS)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Average the chosen values of each row, or return 0 if there are none."""
    return (values * chosen).sum(1) / chosen.sum(1).clamp(min=1)
