"""LeakyReLU followed by AdaIN on the CPU, for `lord_fast.kernels.leaky_adain`."""

from typing import Any

import torch
from torch import Tensor

from .. import reference
from .loader import functions

MAPS = (torch.float32, torch.bfloat16)


def leaky_adain(
    x: Tensor, added: Tensor, bias: Tensor, scale: Tensor, slope: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """See `lord_fast.kernels.leaky_adain`. float64 runs the reference.

    Returns:
        The output, the means [B, C] and 1 / deviations [B, C].

    Raises:
        ValueError: `added` is not [C], or a code is not [B, C].
    """
    _check(x, added, bias=bias, scale=scale)
    if x.dtype not in MAPS:
        return reference.leaky_adain(x, added, bias, scale, slope, eps)
    x = x.contiguous(memory_format=torch.channels_last)
    out = torch.empty_like(x)
    codes = [tensor.float().contiguous() for tensor in (added, bias, scale)]
    mean, rstd = (torch.empty_like(codes[1]) for _ in range(2))
    functions().lord_fast_leaky_adain(
        *_pointers(x, *codes), *_sizes(x), slope, eps, *_how(x), *_pointers(out, mean, rstd)
    )
    return out, mean, rstd


def leaky_adain_backward(
    grad: Tensor, x: Tensor, added: Tensor, scale: Tensor, mean: Tensor, rstd: Tensor, slope: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, of the added bias per image, of the bias and of the scale."""
    _check(x, added, scale=scale, mean=mean, rstd=rstd)
    if grad.shape != x.shape:
        raise ValueError(f"grad {list(grad.shape)}: expected {list(x.shape)}")
    if x.dtype not in MAPS:
        return reference.leaky_adain_backward(grad, x, added, scale, mean, rstd, slope)
    maps = [t.to(x.dtype).contiguous(memory_format=torch.channels_last) for t in (grad, x)]
    codes = [tensor.float().contiguous() for tensor in (added, scale, mean, rstd)]
    found = [torch.empty_like(maps[1]), *(torch.empty_like(codes[2]) for _ in range(3))]
    functions().lord_fast_leaky_adain_backward(
        *_pointers(*maps, *codes), *_sizes(x), slope, *_how(x), *_pointers(*found)
    )
    return found[0], found[1], found[2], found[3]


def _check(x: Tensor, added: Tensor, **codes: Tensor) -> None:
    if added.shape != x.shape[1:2]:
        raise ValueError(f"added {list(added.shape)}: expected [{x.shape[1]}]")
    for name, code in codes.items():
        if code.shape != x.shape[:2]:
            raise ValueError(f"{name} {list(code.shape)}: expected {list(x.shape[:2])}")


def _pointers(*tensors: Tensor) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


def _sizes(x: Tensor) -> tuple[int, int, int]:
    return len(x), x.shape[2] * x.shape[3], x.shape[1]


def _how(x: Tensor) -> tuple[Any, ...]:
    return x.dtype == torch.bfloat16, torch.get_num_threads()
