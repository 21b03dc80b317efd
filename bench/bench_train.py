"""Compares lord-fast's training with the published training under pytest-benchmark.

    python -m pytest bench/bench_train.py --benchmark-only

The losses must agree up to rounding. LORD_FAST_BENCH_BATCH and LORD_FAST_BENCH_STEPS set the batch
size and the number of steps.
"""

import os

import pytest
import torch

from lord_fast.bench import step
from lord_fast.bench.published import OURS
from lord_fast.bench.train import NUDGED, train_rows
from lord_fast.machine import set_up

BATCH = int(os.environ.get("LORD_FAST_BENCH_BATCH", "4"))
STEPS = int(os.environ.get("LORD_FAST_BENCH_STEPS", "20"))


@pytest.fixture(scope="module")
def found():
    with step.setting(set_up(), BATCH) as made:
        yield made


def test_training(benchmark, found):
    rows, differences = benchmark.pedantic(
        train_rows, (found, torch.float32), {"steps": STEPS}, rounds=1
    )
    assert differences[OURS][0] < max(1e-4, 10 * differences[NUDGED][0])
    benchmark.extra_info |= {f"{row.name}, ms a step": row.median_ms / STEPS for row in rows}
