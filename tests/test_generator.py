"""Tests the sizes, the published parameter counts and the exact rewrites of the networks."""

import pytest
import torch
import torch.nn.functional as F

from lord_fast.model.generator import (
    Decoder,
    Generator,
    Modulation,
    UpsampleConv,
    adain,
    num_adain_layers,
)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_published_parameter_counts():
    decoder = Decoder(128, 256, 256, size=64, channels=3)
    assert count(decoder.generator) == 7_569_155
    assert count(decoder.modulation) == 526_336


@pytest.mark.parametrize(
    ("size", "layers", "start"), [(32, 4, 2), (64, 4, 4), (128, 5, 4), (256, 6, 4)]
)
def test_sizes(size, layers, start):
    assert num_adain_layers(size) == layers
    decoder = Decoder(5, 6, 8, size=size, channels=1)
    assert decoder.generator.start == start
    with torch.no_grad():
        images = decoder(torch.randn(2, 5), torch.randn(2, 6))
    assert images.shape == (2, 1, size, size)
    assert images.min() >= 0
    assert images.max() <= 1


@pytest.mark.parametrize("size", [16, 48, 100, 512])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match="--size 32, 64, 128 or 256"):
        num_adain_layers(size)


def test_upsample_convolution_equals_the_plain_form():
    torch.manual_seed(0)
    conv = UpsampleConv(6, 4).double()
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64, requires_grad=True)
    plain = F.conv2d(F.interpolate(x, scale_factor=2), conv.weight, conv.bias, padding=1)
    wanted = torch.autograd.grad(plain.sin().sum(), (x, conv.weight, conv.bias))
    folded = conv(x)
    got = torch.autograd.grad(folded.sin().sum(), (x, conv.weight, conv.bias))
    torch.testing.assert_close(folded, plain, rtol=0, atol=1e-12)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_adain_is_instance_norm_with_a_raw_scale():
    torch.manual_seed(0)
    x = torch.randn(3, 4, 6, 6, dtype=torch.float64) * 5 + 2
    bias, scale = torch.randn(2, 3, 4, 1, 1, dtype=torch.float64).unbind(0)
    wanted = scale * F.instance_norm(x, eps=1e-5) + bias
    torch.testing.assert_close(adain(x, bias, scale), wanted, rtol=0, atol=1e-12)
    assert adain(x.bfloat16(), bias, scale).dtype == torch.bfloat16


def test_modulation_returns_bias_and_scale_of_every_channel():
    modulation = Modulation(class_dim=3, adain_dim=8, num_layers=2)
    code = torch.randn(2, 3)
    bias, scale = modulation(code)[1]
    raw = modulation.layers[1](code)
    torch.testing.assert_close(bias[:, :, 0, 0], raw[:, 0::2])
    torch.testing.assert_close(scale[:, :, 0, 0], raw[:, 1::2])


def test_identity_initialization_of_the_modulation():
    modulation = Modulation(class_dim=3, adain_dim=8, num_layers=2, init="identity")
    for bias, scale in modulation(torch.zeros(1, 3)):
        assert bias.abs().max() == 0
        assert (scale - 1).abs().max() == 0


def test_class_enters_only_through_the_modulation_and_content_only_through_the_head():
    generator = Generator(content_dim=4, adain_dim=8, size=32, channels=1)
    names = {name.split(".")[0] for name, _ in generator.named_parameters()}
    assert names == {"head", "body", "hidden", "image"}
    assert generator.head[0].in_features == 4


def test_adain_dim_must_be_a_multiple_of_eight():
    with pytest.raises(ValueError, match="--adain-dim 12"):
        Decoder(4, 4, 12, size=32, channels=1)
