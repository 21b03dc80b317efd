"""Times a training step with pytest-benchmark.

    python -m pytest bench/bench_step.py --benchmark-only --benchmark-group-by=group

lord-fast's first loss is compared with the published loss before anything is timed.
pytest-benchmark times the forms one after the other. Quote ratios from `lord-fast bench step`,
where the forms take turns.
"""

import os

import pytest
import torch

from lord_fast.bench import step
from lord_fast.bench.published import PublishedStep, batch_of
from lord_fast.data.store import as_float
from lord_fast.machine import set_up

WARM_UP = 1 if not torch.cuda.is_available() else 4

BATCH = int(os.environ.get("LORD_FAST_BENCH_BATCH", "64"))


@pytest.fixture(scope="module")
def found():
    with step.setting(set_up(), BATCH) as made:
        yield made


def test_first_loss_is_the_published_one(found):
    stage = found.stage()
    published = PublishedStep.like(stage)
    ids, classes, pixels, noise = batch_of(stage, 0)
    batch = (t.to(stage.device) for t in (ids, classes, as_float(pixels), noise))
    torch.testing.assert_close(stage.step(0)["loss"].detach(), published(*batch), rtol=1e-5, atol=0)


FORMS = step.forms("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("form", FORMS, ids=[form.name for form in FORMS])
def test_step(benchmark, found, form):
    benchmark.group = f"step, B={BATCH}"
    run = form.make(found)
    wait = torch.cuda.synchronize if found.device.type == "cuda" else lambda: None
    benchmark.pedantic(lambda: (run(), wait()), rounds=3, warmup_rounds=WARM_UP)
    benchmark.extra_info["images/s"] = round(BATCH / benchmark.stats.stats.median, 1)
