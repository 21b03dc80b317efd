"""Times the fused bias, LeakyReLU and AdaIN on the CPU against the plain form."""

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
"""Images of a map. More would take the plain form minutes in bf16."""
Form = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def adain_rows(channels: int, size: int) -> list[Row]:
    """Time both forms forward and backward on maps of a size in float32 and bf16."""
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        cases = adain_cases((BATCH, channels, size, size), dtype)
        rows += rows_of(cases, measure(cases, ROUNDS, torch.device("cpu")))
    return rows


def adain_cases(shape: tuple[int, int, int, int], dtype: torch.dtype) -> list[Case]:
    """The plain form, which is eager, and the operator in the selected implementation.

    Args:
        shape: [B, C, H, W] of the map.
        dtype: Of the map.
    """
    group = f"bias, LeakyReLU and AdaIN, {str(dtype).removeprefix('torch.')}"
    params = {"B": shape[0], "C": shape[1], "pixels": shape[2] * shape[3]}
    forms = {"plain": plain, f"fused, {kernels.live('cpu').name}": fused}
    return [
        Case(group, name, params, partial(_both_ways, form, shape, dtype))
        for name, form in forms.items()
    ]


def _both_ways(
    form: Form, shape: tuple[int, int, int, int], dtype: torch.dtype
) -> Callable[[], object]:
    """Return a function that runs a form forward and backward on new maps and codes."""
    x, grad = (
        torch.randn(shape).to(dtype, memory_format=torch.channels_last).requires_grad_()
        for _ in range(2)
    )
    codes = [torch.randn(size, requires_grad=True) for size in (shape[1:2], shape[:2], shape[:2])]
    inputs = (x, *codes)
    return lambda: torch.autograd.grad(form(*inputs), inputs, grad.detach())


def plain(x: Tensor, added: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
    """Compute `kernels.leaky_adain` by PyTorch's operations."""
    y = F.leaky_relu(x + added.to(x.dtype)[:, None, None], SLOPE)
    return adain(y, bias[..., None, None], scale[..., None, None])


def fused(x: Tensor, added: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
    """Compute `kernels.leaky_adain`."""
    return kernels.leaky_adain(x, added, bias, scale, SLOPE, ADAIN_EPS)
