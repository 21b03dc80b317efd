"""Statistics of whole images, which are alike for images of the same style or light."""

import torch
import torch.nn.functional as F
from torch import Tensor

SIZE = 32
"""Side to which images are reduced first."""
LEVELS = 3
"""Number of scales, each half the size of the one before."""
ORDERS = (0, 2, 4, 6, 8)
"""Orders of the Fourier coefficients of the histogram of gradient directions. They are even, so
that black on white and white on black are alike."""
COUNT = LEVELS * (2 * len(ORDERS) - 1 + 4) + 5
"""Number of statistics."""


def image_statistics(images: Tensor) -> Tensor:
    """Measure how an image looks, but not which shapes are where.

    At each scale these are the Fourier coefficients of the histogram of oriented gradients (Dalal &
    Triggs, CVPR 2005) over the whole image, the root mean square of the gradient, the mean, the
    standard deviation, and the mean absolute Laplacian. The last five are the centre and the second
    moments of the brightness.

    Args:
        images: float [B, C, H, W] in [0, 1], with sides of a multiple of 32. Channels are averaged.

    Returns:
        float32 [B, COUNT].
    """
    x = F.avg_pool2d(images.mean(1, keepdim=True), images.shape[2] // SIZE)
    found = []
    for level in range(LEVELS):
        x = F.avg_pool2d(x, 2) if level else x
        found += _at_one_scale(x)
    return torch.stack(found + _moments(x), 1)


def _at_one_scale(x: Tensor) -> list[Tensor]:
    sobel = x.new_tensor(((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)))[None, None] / 8
    laplace = x.new_tensor(((0, 1, 0), (1, -4, 1), (0, 1, 0)))[None, None]
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    across, down = F.conv2d(padded, sobel), F.conv2d(padded, sobel.transpose(2, 3))
    size, direction = torch.hypot(across, down), torch.atan2(down, across)
    histogram = [
        (size * wave(order * direction)).mean((1, 2, 3))
        for order in ORDERS
        for wave in (torch.cos, torch.sin)[: 2 if order else 1]
    ]
    return [
        *histogram, size.square().mean((1, 2, 3)).sqrt(), x.mean((1, 2, 3)), x.std((1, 2, 3)),
        F.conv2d(x, laplace).abs().mean((1, 2, 3)),
    ]  # fmt: skip


def _moments(x: Tensor) -> list[Tensor]:
    """The centre of the brightness and its covariance, in halves of the side."""
    place = torch.linspace(-1, 1, x.shape[2], dtype=x.dtype)
    mass = x / x.sum((1, 2, 3), keepdim=True).clamp(min=1e-6)
    rows, columns = mass.sum((1, 3)), mass.sum((1, 2))
    down, across = rows @ place, columns @ place
    product = torch.einsum("bchw,h,w->b", mass, place, place)
    return [
        across, down, columns @ place.square() - across.square(),
        rows @ place.square() - down.square(), product - across * down,
    ]  # fmt: skip
