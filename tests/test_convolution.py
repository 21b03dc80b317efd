"""Checks that both forms of the convolutions equal PyTorch's, forward and backward."""

import pytest
import torch
import torch.nn.functional as F

from lord_fast.model import convolution as module
from lord_fast.model.convolution import convolution


@pytest.fixture(autouse=True)
def copies_pay(monkeypatch):
    """Choose as on a CPU without AVX-512, whichever this one is."""
    monkeypatch.setattr(module, "COPIES_PAY", True)


@pytest.mark.parametrize("wide", [1, 100], ids=["by layout", "plain"])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    ("function", "kernel", "options"),
    [
        (F.conv2d, 5, {"padding": 2}),
        (F.conv2d, 4, {"padding": 1, "stride": 2}),
        (F.conv_transpose2d, 4, {"padding": 1, "stride": 2}),
    ],
)
def test_convolutions_equal_pytorch(monkeypatch, function, kernel, options, memory_format, wide):
    monkeypatch.setattr(module, "WIDE", wide)
    rng = torch.Generator().manual_seed(0)
    transposed = function is F.conv_transpose2d
    shapes = ((3, 6, 10, 8), (6, 4, kernel, kernel) if transposed else (4, 6, kernel, kernel), (4,))
    inputs = [torch.randn(shape, generator=rng, dtype=torch.float64) for shape in shapes]
    inputs[:2] = [tensor.contiguous(memory_format=memory_format) for tensor in inputs[:2]]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    wanted = function(*inputs, **options)
    got = convolution(*inputs, **options, transposed=transposed)
    assert ("_Convolution" in str(got.grad_fn)) == (wide == 1)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    pairs = zip(
        torch.autograd.grad(got.sin().sum(), inputs),
        torch.autograd.grad(wanted.sin().sum(), inputs),
        strict=True,
    )
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_where_copies_do_not_pay_the_plain_form_is_used(monkeypatch):
    monkeypatch.setattr(module, "WIDE", 1)
    monkeypatch.setattr(module, "COPIES_PAY", False)
    weight = torch.randn(4, 3, 3, 3, requires_grad=True)
    out = convolution(torch.randn(2, 3, 6, 6), weight, torch.zeros(4), padding=1)
    assert "_Convolution" not in str(out.grad_fn)


def test_narrow_dtypes_use_the_plain_form(monkeypatch):
    monkeypatch.setattr(module, "WIDE", 1)
    x, weight = torch.randn(2, 3, 6, 6), torch.randn(4, 3, 3, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = convolution(x, weight, torch.zeros(4), padding=1)
    assert out.dtype == torch.bfloat16
    assert "_Convolution" not in str(out.grad_fn)


def test_without_onednn_the_plain_form_trains_the_same(monkeypatch):
    """PyTorch has no oneDNN on a Mac, and only oneDNN makes up for copies of the layout."""
    monkeypatch.setattr(module, "WIDE", 1)
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 6, 6, generator=rng).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(4, 3, 3, 3, generator=rng, requires_grad=True)
    bias = torch.zeros(4, requires_grad=True)
    with_it = convolution(x, weight, bias, padding=1)
    assert "_Convolution" in str(with_it.grad_fn)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with torch.backends.mkldnn.flags(enabled=False):
        without = convolution(x, weight, bias, padding=1)
        assert "_Convolution" not in str(without.grad_fn)
        got = torch.autograd.grad(without.square().sum(), (weight, bias))
    wanted = torch.autograd.grad(with_it.square().sum(), (weight, bias))
    torch.testing.assert_close(without, with_it, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-4)
