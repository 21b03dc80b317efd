"""Times the fused bias, LeakyReLU and AdaIN on the CPU with pytest-benchmark, both ways.

    python -m pytest bench/bench_adain.py --benchmark-only --benchmark-group-by=group

Quote ratios from `lord-fast bench step`, where the forms take turns.
"""

import pytest
import torch

from lord_fast.bench.adain import adain_cases
from lord_fast.machine import set_up

SHAPE = (32, 64, 32, 32)


@pytest.mark.parametrize("form", ["plain", "fused"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adain(benchmark, dtype, form):
    set_up("cpu")
    case = next(case for case in adain_cases(SHAPE, dtype) if case.name.startswith(form))
    benchmark.group = case.group
    benchmark.pedantic(lambda run: run(), setup=lambda: ((case.prepare(),), {}), rounds=7)
