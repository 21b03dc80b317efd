"""Tests of the training step that need a real GPU.

A captured step must equal the eager step, images must be the same from any place, and bf16 and TF32
must stay close to float32. Run them with `python -m pytest tests/test_step_cuda.py`. `bench/gpu.sh`
runs them too.
"""

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs a GPU (CUDA)", allow_module_level=True)

from torch.profiler import ProfilerActivity, profile

from lord_fast import kernels
from lord_fast.config import replace
from lord_fast.data.store import ImageStore
from lord_fast.machine import set_up
from lord_fast.train.capture import COMPARED, WARM_UP
from lord_fast.train.latent import LatentStage
from tests.test_train import SMALL

FIRST = WARM_UP + COMPARED
"""The first step of a captured stage that is only a replay."""
STEPS = FIRST + 5
CONFIG = replace(SMALL, device="cuda", steps=STEPS, cuda_graph="off")


def losses(store_path, precision="float32", place="auto", **flags) -> torch.Tensor:
    machine, store = set_up("cuda", precision), ImageStore(store_path)
    store.place(place, machine.device)
    kernels.use("auto", "cuda")
    stage = LatentStage(replace(CONFIG, **flags), store, machine)
    return torch.stack([stage.step(step)["loss"] for step in range(STEPS)]).cpu()


@pytest.fixture(scope="module")
def plain(glyph_store):
    return losses(glyph_store)


@pytest.mark.parametrize("place", ["cuda", "pinned", "disk"])
def test_images_are_the_same_from_any_place(glyph_store, plain, place):
    torch.testing.assert_close(losses(glyph_store, place=place), plain, rtol=1e-4, atol=0)


@pytest.mark.parametrize("compiled", ["off", "on"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_captured_step_is_the_step(glyph_store, precision, compiled):
    wanted = losses(glyph_store, precision, compile=compiled)
    got = losses(glyph_store, precision, compile=compiled, cuda_graph="on")
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=0)


@pytest.mark.parametrize(("precision", "tolerance"), [("tf32", 1e-2), ("bf16", 2e-2)])
def test_narrow_types_track_float32(glyph_store, plain, precision, tolerance):
    torch.testing.assert_close(losses(glyph_store, precision), plain, rtol=tolerance, atol=0)


def test_the_cpu_computes_the_same(glyph_store, plain):
    stage = LatentStage(SMALL, ImageStore(glyph_store), set_up("cpu", "float32"))
    on_cpu = torch.stack([stage.step(step)["loss"] for step in range(STEPS)])
    torch.testing.assert_close(on_cpu[:4], plain[:4], rtol=1e-4, atol=0)


def test_a_replay_is_one_launch_of_the_step(glyph_store):
    machine, store = set_up("cuda", "bf16"), ImageStore(glyph_store)
    stage = LatentStage(replace(CONFIG, cuda_graph="on"), store, machine)
    for step in range(FIRST):
        stage.step(step)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        stage.step(FIRST)
        torch.cuda.synchronize()
    counts = {event.key: event.count for event in seen.key_averages()}
    assert counts.get("cudaGraphLaunch") == 1
    assert counts.get("cudaLaunchKernel", 0) < 20


@pytest.mark.parametrize("captured", ["off", "on"])
def test_no_step_waits_for_the_host(glyph_store, captured):
    """CUDA itself raises at any synchronising call. The comparison of the first replays is one."""
    machine, store = set_up("cuda", "float32"), ImageStore(glyph_store)
    store.place("cuda", machine.device)
    stage = LatentStage(replace(CONFIG, cuda_graph=captured), store, machine)
    for step in range(FIRST):
        stage.step(step)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(FIRST, STEPS):
            stage.step(step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
