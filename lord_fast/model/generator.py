"""The generator: a content code becomes an image, a class code modulates every AdaIN layer."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lord_fast.model.convolution import convolution

ADAIN_EPS = 1e-5


def num_adain_layers(size: int) -> int:
    """Number of AdaIN layers, each of which doubles the side, for images of `size` x `size`.

    The published generator has 4 for its 64 px images and so starts at 4 x 4. Larger images add
    layers instead of enlarging the start, whose fully connected head grows with the fourth power
    of its side.

    Args:
        size: Side of the image in pixels.

    Returns:
        4 up to 64 px, 5 at 128 px, 6 at 256 px.

    Raises:
        ValueError: `size` is not a power of two from 32 to 256.
    """
    if size not in (32, 64, 128, 256):
        raise ValueError(
            f"images of {size} x {size}: the generator makes 32, 64, 128 or 256 pixels a side; "
            f"pack the store again with --size 32, 64, 128 or 256"
        )
    return max(4, int(math.log2(size)) - 2)


def upsample_kernel(weight: Tensor) -> Tensor:
    """The 4x4 transposed-convolution kernel equal to nearest-upsample x2 and a 3x3 convolution.

    conv2d(upsample2(x), W, padding=1) == conv_transpose2d(x, K, stride=2, padding=1), where K is
    the sum of the four one-pixel shifts of the flipped W: the same function, borders included,
    with 4 instead of 9 multiply-accumulates an output pixel.

    Args:
        weight: 3x3 convolution weight, [out, in, 3, 3].

    Returns:
        Transposed-convolution weight, [in, out, 4, 4]; differentiable in `weight`.
    """
    flipped = weight.flip(2, 3).transpose(0, 1)
    rows = F.pad(flipped, (0, 0, 0, 1)) + F.pad(flipped, (0, 0, 1, 0))
    return F.pad(rows, (0, 1)) + F.pad(rows, (1, 0))


class UpsampleConv(nn.Conv2d):
    """Nearest-neighbour upsampling x2 followed by a 3x3 convolution, computed as one operation.

    The parameters are those of the 3x3 convolution; see `upsample_kernel`.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, 2H, 2W]."""
        kernel = upsample_kernel(self.weight)
        return convolution(x, kernel, self.bias, stride=2, padding=1, transposed=True)


def adain(x: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
    """Adaptive instance normalisation (Huang & Belongie, 2017) without the usual `1 +`.

    scale * (x - mean) / sqrt(var + 1e-5) + bias, with the mean and the biased variance over height
    and width of each image and channel, in float32 for narrower types of `x`.

    Args:
        x: Feature maps, [B, C, H, W].
        bias: [B, C, 1, 1].
        scale: [B, C, 1, 1].

    Returns:
        [B, C, H, W], the type of `x`.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    var, mean = torch.var_mean(x.to(wide), dim=(2, 3), correction=0, keepdim=True)
    scale = scale.to(wide) * torch.rsqrt(var + ADAIN_EPS)
    return torch.addcmul(bias.to(wide) - mean * scale, x, scale).to(x.dtype)


class _LeakyAdain(torch.autograd.Function):
    """`leaky_adain` in few passes over NHWC memory: sums over pixels are products with ones.

    On a CPU `torch.var_mean` over the inner dimensions of channels-last memory and the backward
    pass that autograd derives take 2 to 5 times as long (bench: lord-fast bench step).
    """

    @staticmethod
    def forward(ctx, x: Tensor, slope: float, bias: Tensor, scale: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        centred = F.leaky_relu(x, slope).permute(0, 2, 3, 1).reshape(batch, -1, channels)
        average = centred.new_full((batch, 1, height * width), 1 / (height * width))
        centred -= torch.bmm(average, centred)
        rstd = torch.rsqrt(torch.bmm(average, centred.square()) + ADAIN_EPS)
        scale = scale.view(batch, 1, channels)
        ctx.save_for_backward(x, centred, rstd, scale)
        ctx.slope = slope
        out = torch.addcmul(bias.view(batch, 1, channels), centred, scale * rstd)
        return out.view(batch, height, width, channels).permute(0, 3, 1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        x, centred, rstd, scale = ctx.saved_tensors
        grad = grad.permute(0, 2, 3, 1).reshape(centred.shape)
        average = grad.new_full((len(grad), 1, grad.shape[1]), 1 / grad.shape[1])
        of_bias = torch.bmm(average, grad)
        of_scale = torch.bmm(average, grad * centred) * rstd
        of_x = torch.addcmul(grad - of_bias, centred, -of_scale * rstd).mul_(scale * rstd)
        of_x = of_x.view(x.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
        of_x = torch.ops.aten.leaky_relu_backward(of_x, x, ctx.slope, False)
        sums = [(part * grad.shape[1]).view(*x.shape[:2], 1, 1) for part in (of_bias, of_scale)]
        return of_x, None, *sums


def leaky_adain(x: Tensor, slope: float, bias: Tensor, scale: Tensor) -> Tensor:
    """`adain` of LeakyReLU, in the form that is fastest where it runs.

    torch.compile fuses the plain form; float32 and float64 on a CPU without it take
    `_LeakyAdain`, the same function.

    Args:
        x: Feature maps, [B, C, H, W].
        slope: Of LeakyReLU, for negative values.
        bias: [B, C, 1, 1].
        scale: [B, C, 1, 1].

    Returns:
        [B, C, H, W], the type of `x`.
    """
    precise = x.dtype in (torch.float32, torch.float64)
    if x.device.type == "cpu" and precise and not torch.compiler.is_compiling():
        with torch.autocast("cpu", enabled=False):
            return _LeakyAdain.apply(x, slope, bias.to(x.dtype), scale.to(x.dtype))
    return adain(F.leaky_relu(x, slope), bias, scale)


class Modulation(nn.Module):
    """Class code to the (bias, scale) pairs of every AdaIN layer: one Linear a layer, no MLP.

    Args:
        class_dim: Length of a class code.
        adain_dim: Channels of an AdaIN layer.
        num_layers: AdaIN layers, see `num_adain_layers`.
        init: linear: PyTorch's start of a Linear, as published; identity: the same weights, but
            biases that make every layer start as plain instance normalisation (bias 0, scale 1).
    """

    def __init__(self, class_dim: int, adain_dim: int, num_layers: int, init: str = "linear"):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(class_dim, 2 * adain_dim) for _ in range(num_layers))
        if init == "identity":
            identity = torch.tensor((0.0, 1.0)).repeat(adain_dim)
            for layer in self.layers:
                layer.bias = nn.Parameter(identity.clone())

    def forward(self, class_code: Tensor) -> list[tuple[Tensor, Tensor]]:
        """[B, class_dim] -> for each layer, (bias, scale), each [B, adain_dim, 1, 1]."""
        pairs = [layer(class_code).unflatten(1, (-1, 2, 1, 1)) for layer in self.layers]
        return [(pair[:, :, 0], pair[:, :, 1]) for pair in pairs]


class Generator(nn.Module):
    """Content code to image; the class enters through the modulation of the AdaIN layers alone.

    Published at 64 px with adain_dim 256: 7,569,155 parameters for RGB. Other widths scale the
    published 32, 64 and 64 channels of the head and of the last hidden layer by adain_dim / 256.

    Args:
        content_dim: Length of a content code.
        adain_dim: Channels of every AdaIN layer, a multiple of 8.
        size: Side of the image in pixels: 32, 64, 128 or 256.
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
        """[B, content_dim] and the output of `Modulation` -> images [B, C, H, W] in [0, 1]."""
        x = content_code
        for linear in self.head:
            x = F.leaky_relu(linear(x), self.leaky_slope)
        x = x.unflatten(1, (-1, self.start, self.start))
        x = x.contiguous(memory_format=torch.channels_last)
        for conv, (bias, scale) in zip(self.body, modulation, strict=True):
            x = leaky_adain(conv(x), self.leaky_slope, bias, scale)
        x = convolution(x, self.hidden.weight, self.hidden.bias, padding=2)
        x = F.leaky_relu(x, self.leaky_slope)
        x = self.image(x)
        return torch.sigmoid(x.to(torch.promote_types(x.dtype, torch.float32)))


class Decoder(nn.Module):
    """Modulation and generator: a content code and a class code to an image.

    Args:
        content_dim: Length of a content code.
        class_dim: Length of a class code.
        adain_dim: Channels of every AdaIN layer.
        size: Side of the image in pixels.
        channels: 1 (grey) or 3 (RGB).
        leaky_slope: Negative slope of LeakyReLU.
        adain_init: See `Modulation`.

    Raises:
        ValueError: the size is none of the generator's, or `adain_dim` is no multiple of 8.
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
        """[B, content_dim], [B, class_dim] -> images [B, channels, size, size] in [0, 1]."""
        return self.generator(content_code, self.modulation(class_code))
