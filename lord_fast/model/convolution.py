"""Convolutions over channels-last memory that compute weight gradients in the fastest layout."""

import torch
import torch.nn.functional as F
from torch import Tensor

WIDE = 128
"""Minimum number of input channels for which copies to NCHW memory pay off."""
COPIES_PAY = torch.backends.cpu.get_cpu_capability() != "AVX512"
"""Whether oneDNN computes weight gradients faster over NCHW memory on this CPU. With AVX-512 it is
slower: 1.25 s against 0.74 s for 5x5 filters from 256 to 64 channels at 64 px with 64 images."""


class _Convolution(torch.autograd.Function):
    """A convolution whose weight gradient is computed on copies in NCHW memory.

    On AVX2, oneDNN computes weight gradients at half the speed of its forward pass over NHWC memory
    and at two thirds of that speed over NCHW memory. Forward and input gradient are at least as
    fast over NHWC memory.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, options: tuple) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.options = ([len(bias)], *options)
        return torch.convolution(x, weight, bias, *options)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        differentiate = torch.ops.aten.convolution_backward
        wanted = (ctx.needs_input_grad[0], False, False)
        of_x, _, _ = differentiate(grad, x, weight, *ctx.options, wanted)
        plain = (tensor.contiguous() for tensor in (grad, x, weight))
        _, of_weight, of_bias = differentiate(*plain, *ctx.options, (False, True, True))
        return of_x, of_weight, of_bias, None


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int = 1,
    padding: int,
    transposed: bool = False,
) -> Tensor:
    """Compute `conv2d` or `conv_transpose2d` in the form with the fastest backward pass.

    `_Convolution` computes the same function. It is used in float32 and float64 on a CPU without
    AVX-512 and with oneDNN for at least `WIDE` input channels. Other machines, autocast,
    torch.compile and a PyTorch without oneDNN use the plain form.

    Args:
        x: [B, in, H, W].
        weight: [out, in, k, k], or [in, out, k, k] if `transposed`.
        bias: [out], or None.
        stride: Stride of rows and columns.
        padding: Padding of rows and columns.
        transposed: Whether to compute `conv_transpose2d`.

    Returns:
        [B, out, H', W'].
    """
    by_layout = COPIES_PAY and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    if torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        by_layout = False
    by_layout = by_layout and torch.backends.mkldnn.is_available()
    if by_layout and x.shape[1] >= WIDE and bias is not None:
        options = ([stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1)
        return _Convolution.apply(x, weight, bias, options)
    function = F.conv_transpose2d if transposed else F.conv2d
    return function(x, weight, bias, stride, padding)
