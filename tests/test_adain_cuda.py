"""Tests of the fused LeakyReLU and AdaIN that need a real GPU.

Run them with `python -m pytest tests/test_adain_cuda.py`.
"""

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs a GPU (CUDA)", allow_module_level=True)
pytest.importorskip("triton", reason="CUDA is there, but Triton is not installed")

from lord_fast import kernels
from lord_fast.kernels import reference

SLOPE, EPS = 0.01, 1e-5


@pytest.mark.parametrize("side", [8, 16, 32, 64])
@pytest.mark.parametrize("channels", [8, 64, 256])
def test_equals_reference(side, channels):
    x, grad = (
        torch.randn(5, channels, side, side, device="cuda")
        .bfloat16()
        .to(memory_format=torch.channels_last)
        for _ in range(2)
    )
    added = torch.randn(channels, device="cuda")
    bias, scale = (torch.randn(5, channels, device="cuda").bfloat16() for _ in range(2))
    inputs = [t.requires_grad_() for t in (x, added, bias, scale)]
    out = kernels.leaky_adain(*inputs, SLOPE, EPS)
    got = torch.autograd.grad(out, inputs, grad)
    exact = [t.detach().double() for t in inputs]
    wanted, mean, rstd = reference.leaky_adain(*exact, SLOPE, EPS)
    torch.testing.assert_close(out.double(), wanted, rtol=2**-7, atol=1e-3)
    of_x, of_added, of_bias, of_scale = reference.leaky_adain_backward(
        grad.double(), exact[0], exact[1], exact[3], mean, rstd, SLOPE
    )
    for a, b in zip(got, (of_x, of_added.sum(0), of_bias, of_scale), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=2e-2, atol=2e-2 * float(b.abs().mean()))


def test_the_fused_operator_is_chosen_under_bf16():
    x = torch.zeros(1, device="cuda")
    assert not kernels.fuses_adain(x, 4096)
    with torch.autocast("cuda", torch.bfloat16):
        assert kernels.fuses_adain(x, 4096)
