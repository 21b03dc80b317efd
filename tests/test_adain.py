"""Tests of the fused LeakyReLU and AdaIN as an operator."""

import pytest
import torch
import torch.nn.functional as F

from lord_fast import kernels
from lord_fast.kernels import adain as fused
from lord_fast.model import generator
from lord_fast.model.generator import Decoder, adain


def codes(dtype=torch.float64):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 4, generator=rng, dtype=dtype).to(memory_format=torch.channels_last)
    found = (
        x,
        *(torch.randn(*size, generator=rng, dtype=dtype) for size in ((3,), (2, 3), (2, 3))),
    )
    return [t.requires_grad_() for t in found]


def test_it_is_the_plain_function_with_its_gradients():
    x, added, bias, scale = codes()
    plain = adain(F.leaky_relu(x + added[:, None, None], 0.1), bias[..., None, None],
                  scale[..., None, None])  # fmt: skip
    ours = kernels.leaky_adain(x, added, bias, scale, 0.1, 1e-5)
    torch.testing.assert_close(ours, plain)
    weight = torch.randn_like(plain)
    wanted = torch.autograd.grad((plain * weight).sum(), (x, added, bias, scale))
    got = torch.autograd.grad((ours * weight).sum(), (x, added, bias, scale))
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("choice", ["reference", "native"])
def test_opcheck(choice):
    kernels.use(choice)
    x, added, bias, scale = codes(torch.float32)
    torch.library.opcheck(
        torch.ops.lord_fast.leaky_adain.default, (x, added, bias, scale, 0.1, 1e-5)
    )


@pytest.mark.parametrize(
    ("device", "dtype", "live", "pixels", "wanted"),
    [
        ("cuda", torch.bfloat16, "triton", 4096, True),
        ("cuda", torch.bfloat16, "triton", 16384, False),
        ("cuda", torch.bfloat16, "reference", 4096, False),
        ("cuda", torch.float32, "triton", 4096, False),
        ("cpu", torch.bfloat16, "native", 4096, True),
        ("cpu", torch.float32, "native", 16384, True),
        ("cpu", torch.float64, "native", 4096, False),
        ("cpu", torch.float32, "reference", 4096, False),
    ],
)
def test_it_is_chosen_where_the_bytes_say_so(monkeypatch, device, dtype, live, pixels, wanted):
    monkeypatch.setattr(fused.dispatch, "live", lambda d: fused.dispatch.Live(live, ""))
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda d: dtype == torch.bfloat16)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda d: dtype)
    whole = torch.float32 if dtype == torch.bfloat16 else dtype
    with torch._subclasses.FakeTensorMode():
        assert kernels.fuses_adain(torch.empty(1, device=device, dtype=whole), pixels) == wanted


def test_the_generator_is_the_same_with_it(monkeypatch):
    torch.manual_seed(0)
    decoder = Decoder(4, 8, 8, 32, 3).double()
    content, class_ = torch.randn(3, 4).double(), torch.randn(3, 8).double()

    def run():
        images = decoder(content, class_)
        return images, *torch.autograd.grad(images.square().sum(), list(decoder.parameters()))

    wanted, used = run(), []
    monkeypatch.setattr(
        generator.kernels, "fuses_adain", lambda x, pixels: used.append(pixels) or True
    )
    torch.testing.assert_close(run(), wanted)
    assert used == [16, 64, 256, 1024]
