"""The encoders of stage 2, which predict the content code and the class code of an image."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_STRIDED = 4
"""Number of convolutions that halve the side. They follow the first convolution."""


class Encoder(nn.Module):
    """Five convolutions and three fully connected layers (Gabbay & Hoshen, 2020, stage 2).

    The published encoder takes 64 px images and has encoder_dim 256. For other sizes only the
    first fully connected layer changes, which reads encoder_dim * (size / 16)^2 values.

    Args:
        code_dim: Length of the code.
        encoder_dim: Channels of the last three convolutions and width of the fully connected
            layers, a multiple of 4. The first convolution has a quarter and the second a half of
            it.
        size: Side of the image in pixels, a multiple of 16.
        channels: 1 (grey) or 3 (RGB).
        leaky_slope: Negative slope of LeakyReLU.

    Raises:
        ValueError: `encoder_dim` is not a multiple of 4.
    """

    def __init__(
        self, code_dim: int, encoder_dim: int, size: int, channels: int, leaky_slope: float = 0.01
    ):
        super().__init__()
        if encoder_dim % 4:
            raise ValueError(f"--encoder-dim {encoder_dim}: must be a multiple of 4")
        self.leaky_slope = leaky_slope
        widths = (encoder_dim // 4, encoder_dim // 2, *(encoder_dim,) * (NUM_STRIDED - 1))
        convs = [nn.Conv2d(channels, widths[0], kernel_size=7, padding=3)]
        for a, b in itertools.pairwise(widths):
            convs.append(nn.Conv2d(a, b, kernel_size=4, stride=2, padding=1))
        flat = encoder_dim * (size >> NUM_STRIDED) ** 2
        self.hidden = nn.ModuleList(
            (nn.Linear(flat, encoder_dim), nn.Linear(encoder_dim, encoder_dim))
        )
        self.last = nn.Linear(encoder_dim, code_dim)
        for conv in convs:
            weight = conv.weight.detach()
            conv.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last))
        self.convs = nn.ModuleList(convs)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, channels, size, size] in [0, 1] to codes, float32 [B, code_dim]."""
        x = images
        for conv in self.convs:
            x = F.leaky_relu(conv(x), self.leaky_slope)
        x = x.flatten(1)
        for linear in self.hidden:
            x = F.leaky_relu(linear(x), self.leaky_slope)
        return self.last(x).float()


class Encoders(nn.Module):
    """The content encoder and the class encoder.

    Args:
        content_dim: Length of a content code.
        class_dim: Length of a class code.
        encoder_dim: Width of the networks, see `Encoder`.
        size: Side of the image in pixels.
        channels: 1 (grey) or 3 (RGB).
        leaky_slope: Negative slope of LeakyReLU.
    """

    def __init__(
        self,
        content_dim: int,
        class_dim: int,
        encoder_dim: int,
        size: int,
        channels: int,
        leaky_slope: float = 0.01,
    ):
        super().__init__()
        self.content = Encoder(content_dim, encoder_dim, size, channels, leaky_slope)
        self.class_ = Encoder(class_dim, encoder_dim, size, channels, leaky_slope)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images [B, C, H, W] in [0, 1] to codes.

        Returns:
            Content codes, float32 [B, content_dim], and class codes, float32 [B, class_dim].
        """
        return self.content(images), self.class_(images)
