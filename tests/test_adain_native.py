"""Tests of LeakyReLU and AdaIN in C++, on every instruction set that this machine supports."""

import pytest
import torch
from adain_cases import EPS, SLOPE, assert_equals_float64, some
from test_latent_native import runnable, threads  # noqa: F401 (a fixture)

from lord_fast import kernels
from lord_fast.kernels import native
from lord_fast.kernels.native import leaky_adain, leaky_adain_backward
from lord_fast.model import generator
from lord_fast.model.generator import Decoder

SHAPES = [(3, 8, 4, 4), (2, 24, 5, 7), (2, 40, 8, 8), (1, 64, 32, 32), (2, 16, 1, 1)]


@pytest.fixture(autouse=True, params=runnable())
def instructions(request):
    before = native.instructions()
    native.use_instructions(request.param)
    yield
    native.use_instructions(before)


def both(x, grad, added, bias, scale, slope, eps):
    out = leaky_adain(x, added, bias, scale, slope, eps)
    return *out, *leaky_adain_backward(grad, x, added, scale, *out[1:], slope)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_reference_in_float64(shape, dtype):
    assert_equals_float64(both, shape, dtype)


def test_bfloat16_rounds_as_pytorch_does():
    """A scale of 0 lets the bias through, so the output is the rounded bias."""
    bias = torch.randn(1, 4096, generator=torch.Generator().manual_seed(0))
    bias[0, :5] = torch.tensor((1.00390625, 1.01171875, float("inf"), float("nan"), 3.4e38))
    x = torch.randn(1, 4096, 2, 1).bfloat16().contiguous(memory_format=torch.channels_last)
    zero = torch.zeros(4096)
    out = leaky_adain(x, zero, bias, zero[None], SLOPE, EPS)[0]
    assert torch.equal(out[0, :, 0, 0].nan_to_num(7), bias[0].bfloat16().nan_to_num(7))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_number_of_threads_gives_the_same_bits(dtype, threads):  # noqa: F811
    x, grad, added, bias, scale = some((7, 24, 16, 16), dtype)
    found = []
    for number in (1, 2, 5):
        threads(number)
        found.append(both(x, grad, added, bias, scale, SLOPE, EPS))
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


def test_memory_layout_and_dtype_of_codes_do_not_matter():
    x, grad, added, bias, scale = some((2, 24, 5, 7), torch.float32)
    plain = leaky_adain(x, added, bias, scale, SLOPE, EPS)
    other = leaky_adain(
        x.contiguous(), added.double(), bias.t().contiguous().t(), scale, SLOPE, EPS
    )
    assert all(torch.equal(a, b) for a, b in zip(plain, other, strict=True))
    wanted = leaky_adain_backward(grad, x, added, scale, *plain[1:], SLOPE)
    got = leaky_adain_backward(grad.contiguous(), x, added, scale, *plain[1:], SLOPE)
    assert all(torch.equal(a, b) for a, b in zip(wanted, got, strict=True))


def test_the_generator_uses_it(monkeypatch):
    """With autocast to bfloat16, it is as near to float32 as the plain form."""
    torch.manual_seed(0)
    decoder = Decoder(4, 8, 16, 32, 3, adain_init="identity")
    content, class_ = torch.randn(3, 4), torch.randn(3, 8)
    calls, real = [], kernels.leaky_adain
    monkeypatch.setattr(
        generator.kernels, "leaky_adain", lambda *some: calls.append(1) or real(*some)
    )

    def run(choice, narrow):
        kernels.use(choice)
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            images = decoder(content, class_)
        return images, *torch.autograd.grad(images.square().sum(), list(decoder.parameters()))

    found = {
        (choice, narrow): run(choice, narrow)
        for choice in ("reference", "native")
        for narrow in (False, True)
    }
    kernels.use("auto")
    assert len(calls) == 2 * 4
    exact = found["reference", False]

    def error(ours):
        return max((a - b).norm() / b.norm() for a, b in zip(ours, exact, strict=True))

    assert error(found["native", False]) < 1e-3
    assert error(found["native", True]) < 1.5 * error(found["reference", True])


@pytest.mark.parametrize(("images", "codes"), [(5, 1), (1, 5)])
def test_one_image_or_code_is_used_for_all(images, codes):
    """Reading the others would be outside the memory."""
    x, grad, added, bias, scale = some((5, 24, 4, 4), torch.float32)
    given = [x[:images], added, bias[:codes], scale[:codes]]
    whole = [x[:images].expand_as(x), added, *(c[:codes].expand(5, -1) for c in (bias, scale))]
    results = []
    for inputs in (given, whole):
        leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
        out = kernels.leaky_adain(*leaves, SLOPE, EPS)
        results.append((out, *torch.autograd.grad(out, leaves, grad)))
    torch.testing.assert_close(results[0][0], results[1][0])
    for ours, wanted in zip(results[0][1:], results[1][1:], strict=True):
        wanted = wanted if ours.shape == wanted.shape else wanted.sum(0, keepdim=True)
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)


def test_codes_of_another_size_are_refused():
    x, grad, added, bias, scale = some((5, 24, 4, 4), torch.float32)
    with pytest.raises(ValueError, match=r"scale \[4, 24\]: expected \[5, 24\]"):
        leaky_adain(x, added, bias, scale[:4], SLOPE, EPS)
    with pytest.raises(ValueError, match=r"added \[23\]: expected \[24\]"):
        leaky_adain(x, added[:23], bias, scale, SLOPE, EPS)
    with pytest.raises(ValueError, match=r"mean \[1, 24\]: expected \[5, 24\]"):
        leaky_adain_backward(grad, x, added, scale, bias[:1], bias, SLOPE)
