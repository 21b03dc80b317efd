"""The encoders of stage 2, which predict the content code and the class code of an image."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lord_fast.model.codebook import Codebook, Decode, closeness

NUM_STRIDED = 4
"""Number of convolutions that halve the side. They follow the first convolution."""


class KnownCodes(nn.Module):
    """Replaces a predicted code by the mean of the known codes around it.

    A known code has the weight exp(-d^2 / (2 std^2)), where d is its distance to the prediction
    (Nadaraya, 1964; Watson, 1964). If predictions are known codes with Gaussian noise of this
    standard deviation, the result is the expected code.

    Args:
        num_codes: Number of known codes.
        code_dim: Length of a code.
    """

    codes: Tensor
    std: Tensor

    def __init__(self, num_codes: int, code_dim: int):
        super().__init__()
        self.register_buffer("codes", torch.zeros(num_codes, code_dim))
        self.register_buffer("std", torch.ones(()))

    def fill(self, codes: Tensor, bandwidth: float) -> None:
        """Set the known codes.

        Args:
            codes: float32 [num_codes, code_dim].
            bandwidth: Standard deviation, in units of the root mean square distance of the codes
                from their mean.
        """
        self.codes.copy_(codes)
        self.std.copy_(bandwidth * (codes - codes.mean(0)).square().sum(1).mean().sqrt())

    def logits(self, predicted: Tensor) -> Tensor:
        """Return the logarithm of the weights up to a constant, float32 [B, num_codes]."""
        return closeness(predicted, self.codes) / self.std.square()

    def forward(self, predicted: Tensor) -> Tensor:
        """Map predicted codes to weighted means of known codes, both float32 [B, code_dim]."""
        with torch.autocast(predicted.device.type, enabled=False):
            return self.logits(predicted).softmax(1) @ self.codes


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
        known: Codes that replace the predictions. None leaves predictions unchanged, as in the
            published encoder.

    Raises:
        ValueError: `encoder_dim` is not a multiple of 4.
    """

    def __init__(
        self,
        code_dim: int,
        encoder_dim: int,
        size: int,
        channels: int,
        leaky_slope: float = 0.01,
        known: KnownCodes | Codebook | None = None,
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
        self.known = known

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, channels, size, size] in [0, 1] to codes, float32 [B, code_dim].

        With a codebook, `Encoders` finds better codes, because it also generates images.
        """
        return self.refine(self.predict(images))

    def refine(self, predicted: Tensor) -> Tensor:
        """Replace predictions by the nearest code of a codebook, or by a mean of known codes."""
        return predicted if self.known is None else self.known(predicted)

    def predict(self, images: Tensor) -> Tensor:
        """Return the codes of `forward` before `refine`."""
        x = images
        for conv in self.convs:
            x = F.leaky_relu(conv(x), self.leaky_slope)
        x = x.flatten(1)
        for linear in self.hidden:
            x = F.leaky_relu(linear(x), self.leaky_slope)
        return self.last(x).float()

    @torch.no_grad()
    def init_kaiming(self, images: Tensor, codes: Tensor, generator: torch.Generator) -> None:
        """Initialize the weights so that activations keep their scale (He et al., 2015).

        PyTorch's default shrinks them from layer to layer, and all images get nearly the same code.
        The first layer also standardizes the pixels, and the last layer starts at the mean and the
        standard deviation of the codes.

        Args:
            images: Images of training, float32 [N, channels, size, size] in [0, 1].
            codes: The codes to predict, float32 [N, code_dim].
            generator: Source of the random weights, on the CPU.
        """
        for layer in (*self.convs, *self.hidden, self.last):
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            weight = torch.empty_like(layer.weight, device="cpu")
            nn.init.kaiming_normal_(weight, self.leaky_slope, generator=generator)
            layer.weight.copy_(weight)
            assert layer.bias is not None
            layer.bias.zero_()
        first, spread = self.convs[0], codes.std(0, correction=0)
        assert isinstance(first, nn.Conv2d)
        assert first.bias is not None
        first.weight.div_(images.std().clamp_min(1e-6))
        first.bias.copy_(-images.mean() * first.weight.sum((1, 2, 3)))
        self.last.weight.mul_(spread[:, None])
        self.last.bias.copy_(codes.mean(0))


class Encoders(nn.Module):
    """The content encoder and the class encoder.

    Args:
        content_dim: Length of a content code.
        class_dim: Length of a class code.
        encoder_dim: Width of the networks, see `Encoder`.
        size: Side of the image in pixels.
        channels: 1 (grey) or 3 (RGB).
        leaky_slope: Negative slope of LeakyReLU.
        known: Codes that replace the predictions of the content encoder and of the class encoder,
            see `Encoder`.
    """

    def __init__(
        self,
        content_dim: int,
        class_dim: int,
        encoder_dim: int,
        size: int,
        channels: int,
        leaky_slope: float = 0.01,
        known: tuple[KnownCodes | Codebook | None, KnownCodes | None] = (None, None),
    ):
        super().__init__()
        self.content = Encoder(content_dim, encoder_dim, size, channels, leaky_slope, known[0])
        self.class_ = Encoder(class_dim, encoder_dim, size, channels, leaky_slope, known[1])

    def forward(self, images: Tensor, decode: Decode) -> tuple[Tensor, Tensor]:
        """Map images to codes.

        Args:
            images: float32 [B, C, H, W] in [0, 1].
            decode: The decoder of stage 2. It is used only with a codebook, see `Codebook.search`.

        Returns:
            Content codes, float32 [B, content_dim], and class codes, float32 [B, class_dim].
        """
        class_code = self.class_(images)
        if not isinstance(self.content.known, Codebook):
            return self.content(images), class_code
        predicted = self.content.predict(images)
        return self.content.known.search(predicted, class_code, images, decode), class_code
