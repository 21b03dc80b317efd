"""Times the fused bias, LeakyReLU and AdaIN against the plain form."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lord_fast import kernels
from lord_fast.bench.measure import Case, Row, measure, rows_of
from lord_fast.model.generator import ADAIN_EPS, adain

SLOPE = 0.01
ROUNDS = 3
BATCH = 8
"""Images of a map. More would take the plain form minutes in bf16 on a CPU."""


def adain_rows(device: torch.device, channels: int, size: int) -> list[Row]:
    """Time both forms forward and backward on maps of a size in float32 and bf16."""
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        cases = adain_cases(device, (BATCH, channels, size, size), dtype)
        rows += rows_of(cases, measure(cases, ROUNDS, device))
    return rows


def adain_cases(
    device: torch.device, shape: tuple[int, int, int, int], dtype: torch.dtype
) -> list[Case]:
    """The plain form, eager as PyTorch runs it, and the operator in the selected implementation."""
    batch, channels, height, width = shape
    x, grad = (
        torch.randn(shape, device=device, dtype=dtype).to(memory_format=torch.channels_last)
        for _ in range(2)
    )
    added, bias, scale = (
        torch.randn(size, device=device, requires_grad=True)
        for size in ((channels,), (batch, channels), (batch, channels))
    )
    x.requires_grad_()

    def backward(function: Callable[..., Tensor]) -> Callable[[], object]:
        inputs = (x, added, bias, scale)
        return lambda: torch.autograd.grad(function(*inputs), inputs, grad)

    group = f"bias, LeakyReLU and AdaIN, {str(dtype).removeprefix('torch.')}"
    params = {"B": batch, "C": channels, "pixels": height * width}
    name = kernels.live(device.type).name
    return [
        Case(group, "plain", params, partial(backward, plain)),
        Case(group, f"fused, {name}", params, partial(backward, fused)),
    ]


def plain(x: Tensor, added: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
    """Compute `kernels.leaky_adain` by PyTorch's operations."""
    y = F.leaky_relu(x + added.to(x.dtype)[:, None, None], SLOPE)
    return adain(y, bias[..., None, None], scale[..., None, None])


def fused(x: Tensor, added: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
    """Compute `kernels.leaky_adain`."""
    return kernels.leaky_adain(x, added, bias, scale, SLOPE, ADAIN_EPS)
