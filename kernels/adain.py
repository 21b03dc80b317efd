"""LeakyReLU followed by adaptive instance normalisation as one operator.

Between two convolutions of the generator the map passes a bias, a LeakyReLU and an AdaIN. Written
apart, they move the map through memory eight times, three forward and five backward, and three more
for the convolution's own bias. This operator moves it two and three times, on a CPU where the cache
holds a map. It is in Triton for bf16 on CUDA and in C++ for float32 and bf16 on the CPU. Its oracle
is in `lord_fast.kernels.reference`.
"""

import torch
from torch import Tensor

from . import dispatch
from .ops import _library

MAX_PIXELS = 4096
"""Largest map that a program can hold, 64 x 64."""


@torch.library.register_fake("lord_fast::leaky_adain", lib=_library)
def _fake(x: Tensor, *args, **kwargs):
    codes = x.new_empty(x.shape[:2], dtype=torch.float32)
    return torch.empty_like(x, memory_format=torch.channels_last), codes, torch.empty_like(codes)


@torch.library.register_fake("lord_fast::leaky_adain_backward", lib=_library)
def _backward_fake(grad: Tensor, x: Tensor, added: Tensor, scale: Tensor, mean: Tensor, *args):
    sums = (torch.empty_like(mean) for _ in range(3))
    return torch.empty_like(x, memory_format=torch.channels_last), *sums


def _save(ctx, inputs, output) -> None:
    x, added, bias, scale, ctx.slope, _ = inputs
    ctx.save_for_backward(x, added, scale, *output[1:])
    ctx.dtypes = (added.dtype, bias.dtype, scale.dtype)


def _backward(ctx, grad: Tensor, *unused):
    of_x, *sums = torch.ops.lord_fast.leaky_adain_backward(grad, *ctx.saved_tensors, ctx.slope)
    sums[0] = sums[0].sum(0)
    return of_x, *(s.to(dtype) for s, dtype in zip(sums, ctx.dtypes, strict=True)), None, None


torch.library.register_autograd(
    "lord_fast::leaky_adain", _backward, setup_context=_save, lib=_library
)


def fuses_adain(x: Tensor, pixels: int) -> bool:
    """Return whether the fused operator is the fastest for maps after a convolution of `x`.

    On CUDA it is under bf16 autocast, where Triton runs and a map has at most `MAX_PIXELS`. Its
    bytes are counted in bench/adain_bytes.py. On the CPU it is for float32 and bf16, where the
    native kernels run. An exported model has the plain form.
    """
    device = x.device.type
    if device not in ("cpu", "cuda"):
        return False
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else x.dtype
    if device == "cpu":
        return (
            dtype in (torch.float32, torch.bfloat16)
            and not torch.compiler.is_exporting()
            and dispatch.live("cpu").name == "native"
        )
    return (
        autocast
        and dtype == torch.bfloat16
        and pixels <= MAX_PIXELS
        and dispatch.live("cuda").name == "triton"
    )


def leaky_adain(
    x: Tensor, added: Tensor, bias: Tensor, scale: Tensor, slope: float, eps: float
) -> Tensor:
    """Compute scale * (y - mean) / sqrt(var + eps) + bias with y = LeakyReLU(x + added).

    Mean and biased variance are taken over the pixels of an image and channel, in float32
    (Huang & Belongie, 2017, equation 8, with LeakyReLU before it).

    Args:
        x: Output of a convolution without its bias, [B, C, H, W], channels last in memory.
        added: The convolution's bias, [C].
        bias: [B, C]. A single image or code is used for all of the others.
        scale: [B, C].
        slope: Negative slope of LeakyReLU.
        eps: Added to the variance.

    Returns:
        [B, C, H, W] with the dtype of `x`, channels last in memory.
    """
    batch = max(len(x), len(bias))
    x, bias, scale = (
        tensor if len(tensor) == batch else tensor.expand(batch, *tensor.shape[1:])
        for tensor in (x, bias, scale)
    )
    return torch.ops.lord_fast.leaky_adain(x, added, bias, scale, slope, eps)[0]
