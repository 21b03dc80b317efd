"""LeakyReLU followed by AdaIN on CUDA, in one pass over memory each way.

A program holds some channels of one image in registers. The forward pass reads and writes the map
once. The backward pass reads the gradient and the map and writes the gradient of the map.
Statistics are taken from the registers, the mean before the variance, so no digits cancel.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

ELEMENTS = 16_384
"""Elements of a map that a program holds, at most. More would leave the registers."""
LARGEST = 4096
"""Pixels of a map for which the forward pass holds twice as many. Its 8 channels are then the 16
bytes of a full access. The backward pass holds two maps and reads 8 bytes at a time there."""


@triton.jit
def _place(PIXELS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr):
    """The channels of a program, which of them exist, its elements, and its places in [B, C]."""
    image = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    pixel = tl.arange(0, PIXELS)
    at = image * PIXELS * CHANNELS + pixel[:, None] * CHANNELS + channel[None, :]
    return channel, channel < CHANNELS, at, image * CHANNELS + channel


@triton.jit
def leaky_adain_kernel(
    x_ptr, added_ptr, bias_ptr, scale_ptr, out_ptr, mean_ptr, rstd_ptr,
    SLOPE: tl.constexpr, EPS: tl.constexpr,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Compute some channels of one image."""
    channel, inside, at, code = _place(PIXELS, CHANNELS, BLOCK_C)
    x = tl.load(x_ptr + at, mask=inside[None, :], other=0.0).to(tl.float32)
    x += tl.load(added_ptr + channel, mask=inside, other=0.0).to(tl.float32)[None, :]
    x = tl.where(x > 0, x, SLOPE * x)
    mean = tl.sum(x, 0) / PIXELS
    x -= mean[None, :]
    rstd = 1 / tl.sqrt_rn(tl.sum(x * x, 0) / PIXELS + EPS)
    bias = tl.load(bias_ptr + code, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(scale_ptr + code, mask=inside, other=0.0).to(tl.float32) * rstd
    out = x * scale[None, :] + bias[None, :]
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=inside[None, :])
    tl.store(mean_ptr + code, mean, mask=inside)
    tl.store(rstd_ptr + code, rstd, mask=inside)


@triton.jit
def leaky_adain_backward_kernel(
    grad_ptr, x_ptr, added_ptr, scale_ptr, mean_ptr, rstd_ptr,
    of_x_ptr, of_added_ptr, of_bias_ptr, of_scale_ptr,
    SLOPE: tl.constexpr,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of some channels of one image. `of_added` is summed over pixels."""
    channel, inside, at, code = _place(PIXELS, CHANNELS, BLOCK_C)
    grad = tl.load(grad_ptr + at, mask=inside[None, :], other=0.0).to(tl.float32)
    x = tl.load(x_ptr + at, mask=inside[None, :], other=0.0).to(tl.float32)
    x += tl.load(added_ptr + channel, mask=inside, other=0.0).to(tl.float32)[None, :]
    mean = tl.load(mean_ptr + code, mask=inside, other=0.0)
    rstd = tl.load(rstd_ptr + code, mask=inside, other=0.0)
    scale = tl.load(scale_ptr + code, mask=inside, other=0.0).to(tl.float32)
    normal = (tl.where(x > 0, x, SLOPE * x) - mean[None, :]) * rstd[None, :]
    of_bias = tl.sum(grad, 0)
    of_scale = tl.sum(grad * normal, 0)
    rest = grad - (of_bias / PIXELS)[None, :] - normal * (of_scale / PIXELS)[None, :]
    of_x = rest * (scale * rstd)[None, :]
    of_x = tl.where(x > 0, of_x, SLOPE * of_x)
    tl.store(of_x_ptr + at, of_x.to(of_x_ptr.dtype.element_ty), mask=inside[None, :])
    tl.store(of_added_ptr + code, tl.sum(of_x, 0), mask=inside)
    tl.store(of_bias_ptr + code, of_bias, mask=inside)
    tl.store(of_scale_ptr + code, of_scale, mask=inside)


def leaky_adain(
    x: Tensor, added: Tensor, bias: Tensor, scale: Tensor, slope: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """See `lord_fast.kernels.leaky_adain`. Returns the output, the means and 1 / deviations."""
    x = x.contiguous(memory_format=torch.channels_last)
    largest = x.shape[2] * x.shape[3] == LARGEST
    grid, shape = _shape(x, 2 * ELEMENTS if largest else ELEMENTS)
    out = torch.empty_like(x)
    mean, rstd = (x.new_empty(x.shape[:2], dtype=torch.float32) for _ in range(2))
    with torch.cuda.device_of(x):
        leaky_adain_kernel[grid](
            x, added, bias.contiguous(), scale.contiguous(), out, mean, rstd,
            SLOPE=slope, EPS=eps, **shape,
        )  # fmt: skip
    return out, mean, rstd


def leaky_adain_backward(
    grad: Tensor, x: Tensor, added: Tensor, scale: Tensor, mean: Tensor, rstd: Tensor, slope: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, of the added bias per image, of the bias and of the scale."""
    x, grad = (t.contiguous(memory_format=torch.channels_last) for t in (x, grad))
    grid, shape = _shape(x, ELEMENTS)
    of_x = torch.empty_like(x)
    of_added, of_bias, of_scale = (torch.empty_like(mean) for _ in range(3))
    with torch.cuda.device_of(x):
        leaky_adain_backward_kernel[grid](
            grad, x, added, scale.contiguous(), mean, rstd, of_x, of_added, of_bias, of_scale,
            SLOPE=slope, **shape,
        )  # fmt: skip
    return of_x, of_added, of_bias, of_scale


def _shape(x: Tensor, most: int) -> tuple[tuple[int, int], dict[str, int]]:
    batch, channels, height, width = x.shape
    pixels = height * width
    assert pixels == triton.next_power_of_2(pixels)
    block_c = min(64, max(1, most // pixels), triton.next_power_of_2(channels))
    warps = max(1, min(32, pixels * block_c // 512))
    grid = (triton.cdiv(channels, block_c), batch)
    return grid, {
        "PIXELS": pixels, "CHANNELS": channels, "BLOCK_C": block_c, "num_warps": warps,
    }  # fmt: skip
