"""The generator, which maps a content code to an image. The class code modulates AdaIN layers."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lord_fast import kernels
from lord_fast.model.convolution import convolution

ADAIN_EPS = 1e-5


def num_adain_layers(size: int) -> int:
    """The number of AdaIN layers for images of `size` x `size`. Each layer doubles the side.

    The published generator has 4 layers for 64 px images and starts at 4 x 4. Larger images get
    more layers and keep that start, because the fully connected head grows with the fourth power
    of the side of the start.

    Args:
        size: Side of the image in pixels.

    Returns:
        4 up to 64 px, 5 at 128 px and 6 at 256 px.

    Raises:
        ValueError: `size` is not 32, 64, 128 or 256.
    """
    if size not in (32, 64, 128, 256):
        raise ValueError(
            f"images of {size} x {size}: the generator makes images of 32, 64, 128 or 256 pixels "
            f"a side; pack the store again with --size 32, 64, 128 or 256"
        )
    return max(4, int(math.log2(size)) - 2)


def upsample_kernel(weight: Tensor) -> Tensor:
    """The 4x4 transposed-convolution kernel that equals upsampling x2 and a 3x3 convolution.

    Let K be the sum of the four one-pixel shifts of the flipped W. Then
    conv2d(upsample2(x), W, padding=1) == conv_transpose2d(x, K, stride=2, padding=1), also at the
    borders. The right side needs 4 instead of 9 multiply-accumulates per output pixel.

    Args:
        weight: Weight of the 3x3 convolution, [out, in, 3, 3].

    Returns:
        Weight of the transposed convolution, [in, out, 4, 4], differentiable in `weight`.
    """
    flipped = weight.flip(2, 3).transpose(0, 1)
    rows = F.pad(flipped, (0, 0, 0, 1)) + F.pad(flipped, (0, 0, 1, 0))
    return F.pad(rows, (0, 1)) + F.pad(rows, (1, 0))


class UpsampleConv(nn.Conv2d):
    """Nearest-neighbour upsampling x2 followed by a 3x3 convolution, computed as one operation.

    The parameters are those of the 3x3 convolution (see `upsample_kernel`).
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor, biased: bool = True) -> Tensor:
        """Map [B, in, H, W] to [B, out, 2H, 2W], with or without the bias."""
        kernel = upsample_kernel(self.weight)
        bias = self.bias if biased else None
        return convolution(x, kernel, bias, stride=2, padding=1, transposed=True)


def adain(x: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
    """Adaptive instance normalisation (Huang & Belongie, 2017) without the usual `1 +`.

    The result is scale * (x - mean) / sqrt(var + 1e-5) + bias. Mean and biased variance are taken
    over height and width, per image and channel. The arithmetic is at least float32.

    Args:
        x: Feature maps, [B, C, H, W].
        bias: [B, C, 1, 1].
        scale: [B, C, 1, 1].

    Returns:
        [B, C, H, W] with the dtype of `x`.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    var, mean = torch.var_mean(x.to(wide), dim=(2, 3), correction=0, keepdim=True)
    scale = scale.to(wide) * torch.rsqrt(var + ADAIN_EPS)
    return torch.addcmul(bias.to(wide) - mean * scale, x, scale).to(x.dtype)


class Modulation(nn.Module):
    """Maps a class code to the biases and scales of every AdaIN layer, with one Linear per layer.

    Args:
        class_dim: Length of a class code.
        adain_dim: Channels of an AdaIN layer.
        num_layers: Number of AdaIN layers, see `num_adain_layers`.
        init: `linear` is PyTorch's initialization of a Linear, as in the published code. `identity`
            has the same weights, but its biases make every layer start as plain instance
            normalisation (bias 0, scale 1).
    """

    def __init__(self, class_dim: int, adain_dim: int, num_layers: int, init: str = "linear"):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(class_dim, 2 * adain_dim) for _ in range(num_layers))
        if init == "identity":
            identity = torch.tensor((0.0, 1.0)).repeat(adain_dim)
            for layer in self.layers:
                layer.bias = nn.Parameter(identity.clone())

    def forward(self, class_code: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Map class codes [B, class_dim] to one (bias, scale) pair per layer.

        Returns:
            A list of (bias, scale), each [B, adain_dim, 1, 1].
        """
        pairs = [layer(class_code).unflatten(1, (-1, 2, 1, 1)) for layer in self.layers]
        return [(pair[:, :, 0], pair[:, :, 1]) for pair in pairs]


class Generator(nn.Module):
    """Maps a content code to an image. The class enters only through the AdaIN layers.

    The published generator makes 64 px images with adain_dim 256 and has 7,569,155 parameters for
    RGB. Other values of adain_dim scale the published 32, 64 and 64 channels of the head and of the
    last hidden layer by adain_dim / 256.

    Args:
        content_dim: Length of a content code.
        adain_dim: Channels of every AdaIN layer, a multiple of 8.
        size: Side of the image in pixels (32, 64, 128 or 256).
        channels: 1 (grey) or 3 (RGB).
        leaky_slope: Negative slope of LeakyReLU (0.01 in the published PyTorch code).
    """

    def __init__(
        self, content_dim: int, adain_dim: int, size: int, channels: int, leaky_slope: float = 0.01
    ):
        super().__init__()
        num_layers = num_adain_layers(size)
        self.start = size >> num_layers
        self.leaky_slope = leaky_slope
        pixels = self.start**2
        widths = (content_dim, *(pixels * adain_dim // divisor for divisor in (8, 4, 1)))
        self.head = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.body = nn.ModuleList(UpsampleConv(adain_dim, adain_dim) for _ in range(num_layers))
        self.hidden = nn.Conv2d(adain_dim, adain_dim // 4, kernel_size=5, padding=2)
        self.image = nn.Conv2d(adain_dim // 4, channels, kernel_size=7, padding=3)

    def forward(self, content_code: Tensor, modulation: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Map content codes [B, content_dim] to images.

        Args:
            content_code: [B, content_dim].
            modulation: The output of `Modulation` for the class codes.

        Returns:
            Images in [0, 1], [B, channels, size, size], at least float32.
        """
        x = content_code
        for linear in self.head:
            x = F.leaky_relu(linear(x), self.leaky_slope)
        x = x.unflatten(1, (-1, self.start, self.start))
        x = x.contiguous(memory_format=torch.channels_last)
        for conv, (bias, scale) in zip(self.body, modulation, strict=True):
            if kernels.fuses_adain(x, 4 * x.shape[2] * x.shape[3]):
                added, x = conv.bias, conv(x, biased=False)
                assert isinstance(added, Tensor)
                x = kernels.leaky_adain(
                    x, added, bias.flatten(1), scale.flatten(1), self.leaky_slope, ADAIN_EPS
                )
            else:
                x = adain(F.leaky_relu(conv(x), self.leaky_slope), bias, scale)
        x = convolution(x, self.hidden.weight, self.hidden.bias, padding=2)
        x = F.leaky_relu(x, self.leaky_slope)
        x = self.image(x)
        return torch.sigmoid(x.to(torch.promote_types(x.dtype, torch.float32)))


class Decoder(nn.Module):
    """The modulation and the generator, which map a content code and a class code to an image.

    Args:
        content_dim: Length of a content code.
        class_dim: Length of a class code.
        adain_dim: Channels of every AdaIN layer.
        size: Side of the image in pixels.
        channels: 1 (grey) or 3 (RGB).
        leaky_slope: Negative slope of LeakyReLU.
        adain_init: See `Modulation`.

    Raises:
        ValueError: `size` is not 32, 64, 128 or 256, or `adain_dim` is not a multiple of 8.
    """

    def __init__(
        self,
        content_dim: int,
        class_dim: int,
        adain_dim: int,
        size: int,
        channels: int,
        leaky_slope: float = 0.01,
        adain_init: str = "linear",
    ):
        super().__init__()
        if adain_dim % 8:
            raise ValueError(f"--adain-dim {adain_dim}: must be a multiple of 8")
        layers = num_adain_layers(size)
        self.modulation = Modulation(class_dim, adain_dim, layers, adain_init)
        self.generator = Generator(content_dim, adain_dim, size, channels, leaky_slope)
        for conv in (*self.generator.body, self.generator.hidden, self.generator.image):
            weight = conv.weight.detach()
            conv.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last))

    def forward(self, content_code: Tensor, class_code: Tensor) -> Tensor:
        """Map content codes [B, content_dim] and class codes [B, class_dim] to images.

        Returns:
            Images in [0, 1], [B, channels, size, size].
        """
        return self.generator(content_code, self.modulation(class_code))
