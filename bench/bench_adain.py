"""Times the fused bias, LeakyReLU and AdaIN with pytest-benchmark, forward and backward.

    python -m pytest bench/bench_adain.py --benchmark-only --benchmark-group-by=group

Both forms are compared in float32 before they are timed. Quote ratios from
`lord-fast bench step`, where they take turns.
"""

import pytest
import torch

from lord_fast.bench.adain import adain_cases
from lord_fast.machine import set_up

SHAPE = (32, 64, 32, 32)


@pytest.mark.parametrize("name", ["plain", "fused"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adain(benchmark, dtype, name):
    machine = set_up()
    plain, fused = adain_cases(machine.device, SHAPE, dtype)
    if dtype == torch.float32:  # tests/test_adain_native.py compares bf16 with float64
        for ours, wanted in zip(fused.prepare()(), plain.prepare()(), strict=True):
            assert (ours - wanted).norm() <= 1e-3 * wanted.norm()
    case = {"plain": plain, "fused": fused}[name]
    benchmark.group = case.group
    wait = torch.cuda.synchronize if machine.device.type == "cuda" else lambda: None
    run = case.prepare()
    benchmark(lambda: (run(), wait()))
