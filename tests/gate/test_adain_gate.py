"""Checks of the compiled LeakyReLU and AdaIN for sm_80 and sm_90, see test_latent_gate.py."""

import re

import pytest
import torch

from lord_fast.kernels.triton import adain
from tests.gate.test_latent_gate import ARCHS, caught

SLOPE, EPS = 0.01, 1e-5
PASSES = {"forward": 2, "backward": 3}


def launch(name: str, side: int, channels: int = 256):
    x = torch.zeros(2, channels, side, side, dtype=torch.bfloat16)
    x = x.to(memory_format=torch.channels_last)
    added, code, mean = torch.zeros(channels), x[..., 0, 0].contiguous(), torch.zeros(2, channels)
    if name == "forward":
        return lambda: adain.leaky_adain(x, added, code, code, SLOPE, EPS)
    return lambda: adain.leaky_adain_backward(x, x, added, code, mean, mean, SLOPE)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("side", [8, 64])
@pytest.mark.parametrize("name", ["forward", "backward"])
def test_a_map_passes_through_memory_as_often_as_it_must(name, side, arch, tmp_path):
    kernel = {"forward": adain.leaky_adain_kernel, "backward": adain.leaky_adain_backward_kernel}
    found = caught(kernel[name], launch(name, side), arch, tmp_path)
    assert found.usage["STACK"] == found.usage["LOCAL"] == 0
    assert found.usage["REG"] * found.threads <= 65_536
    pattern = rf"tt\.(?:load|store) .*: tensor<{side**2}x\d+x!tt\.ptr<bf16>"
    assert len(re.findall(pattern, found.ttgir)) == PASSES[name]
