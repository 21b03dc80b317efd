"""Tests of the fused LeakyReLU and AdaIN in Triton's interpreter, on CPU tensors."""

import pytest
import torch

from lord_fast.kernels import reference
from lord_fast.kernels.triton import adain, leaky_adain, leaky_adain_backward

SLOPE, EPS = 0.1, 1e-5
SHAPES = ((2, 8, 8), (1, 70, 16), (1, 24, 32), (1, 10, 64))
"""Batch, channels and side. The channels need one program, two, and parts of one."""


@pytest.fixture(autouse=True)
def poisoned_empty(monkeypatch):
    """Fill new tensors with NaN, so that elements that a kernel does not write are seen."""

    def poisoned(like, *args, **kwargs):
        return torch.full_like(like, torch.nan)

    monkeypatch.setattr(adain.torch, "empty_like", poisoned)


def inputs(batch: int, channels: int, side: int, dtype=torch.float32):
    """A map far from zero mean, whose variance would cancel in one pass, and codes."""
    rng = torch.Generator().manual_seed(channels)
    x, grad = (
        torch.randn(batch, channels, side, side, generator=rng)
        .add(shift)
        .to(dtype, memory_format=torch.channels_last)
        for shift in (20.0, 0.0)
    )
    added = torch.randn(channels, generator=rng) - 20
    bias, scale = (torch.randn(batch, channels, generator=rng).to(dtype) for _ in range(2))
    return grad, x, added, bias, scale


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_reference(shape):
    grad, x, added, bias, scale = inputs(*shape)
    ours = leaky_adain(x, added, bias, scale, SLOPE, EPS)
    wanted = reference.leaky_adain(x, added, bias, scale, SLOPE, EPS)
    assert ours[0].is_contiguous(memory_format=torch.channels_last)
    for a, b in zip(ours, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-5)
    mean, rstd = wanted[1:]
    ours = leaky_adain_backward(grad, x, added, scale, mean, rstd, SLOPE)
    wanted = reference.leaky_adain_backward(grad, x, added, scale, mean, rstd, SLOPE)
    for a, b in zip(ours, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-4)


def test_bf16_maps_are_computed_in_float32():
    """The interpreter rounds to bf16 by cutting off bits, so 7 of the 8 are compared."""
    grad, x, added, bias, scale = inputs(1, 8, 16, torch.bfloat16)
    out, mean, rstd = leaky_adain(x, added, bias, scale, SLOPE, EPS)
    exact = reference.leaky_adain(
        x.double(), added.double(), bias.double(), scale.double(), SLOPE, EPS
    )
    assert out.dtype == torch.bfloat16
    assert mean.dtype == rstd.dtype == torch.float32
    torch.testing.assert_close(mean.double(), exact[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out.double(), exact[0], rtol=2**-7, atol=1e-4)
    of_x = leaky_adain_backward(grad, x, added, scale, mean, rstd, SLOPE)[0]
    wanted = reference.leaky_adain_backward(
        grad.double(), x.double(), added.double(), scale.double(), *exact[1:], SLOPE
    )[0]
    torch.testing.assert_close(of_x.double(), wanted, rtol=2**-7, atol=1e-4)
