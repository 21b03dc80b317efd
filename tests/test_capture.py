"""Tests that a step can be captured in a CUDA graph, which requires that the host reads no tensor.

A fake CUDA graph keeps the function and runs it again on the fixed inputs, as a replay would.
tests/test_step_cuda.py tests the real graph on a GPU.
"""

import contextlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lord_fast.cli import main
from lord_fast.config import EncoderConfig, replace
from lord_fast.data.loader import Loader
from lord_fast.data.sampler import EpochSampler
from lord_fast.data.store import ImageStore
from lord_fast.machine import set_up
from lord_fast.model.build import stored_codes
from lord_fast.run import checkpoint
from lord_fast.train.capture import COMPARED, WARM_UP, CudaGraph
from lord_fast.train.encoders import EncoderStage
from lord_fast.train.latent import LatentStage
from tests.plain_table import assert_same
from tests.test_reliability import tables_of
from tests.test_train import SMALL, flags

HOST = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_consecutive",
        "is_nonzero", "equal", "lift_fresh"}  # fmt: skip
"""Operators that read a tensor on the host or copy a value from the host to the device."""


class Recorded:
    """A fake of `torch.cuda.CUDAGraph`."""

    def replay(self):
        self.again()


@pytest.fixture
def cuda(monkeypatch):
    """Fake the parts of `torch.cuda` that `CudaGraph` uses."""

    class Stream:
        def wait_stream(self, other):
            pass

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda which: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorded)
    monkeypatch.setattr(CudaGraph, "_capture", capture)


def capture(self, inputs):
    """Replace `CudaGraph._capture` by one that keeps the function and runs it at each replay."""
    self.inputs, self.outputs = tuple(value.clone() for value in inputs), {}
    graph = torch.cuda.CUDAGraph()
    graph.again = lambda: self.outputs.update(self.update(*self.inputs))
    return graph


def stages(glyph_store, trained_run, config=SMALL):
    """Yield both stages, on the CPU."""
    store, machine = ImageStore(glyph_store), set_up("cpu", "float32", 2)
    yield LatentStage(config, store, machine)
    found = checkpoint.latest(trained_run / "checkpoints", "latent")
    run_config = replace(config, steps=120)
    encoders = EncoderConfig(encoder_dim=8, batch_size=16, steps=12)
    latent = checkpoint.load(found)
    counts = store.num_images, store.num_classes
    codes = stored_codes(latent.tables, latent.step, run_config, *counts, machine.device)
    yield EncoderStage(
        encoders, run_config, store, latent.state, ({0: codes[0]}, codes[1]), machine
    )


def test_replayed_steps_equal_eager_steps(glyph_store, trained_run, cuda):
    plain, replayed = (list(stages(glyph_store, trained_run)) for _ in range(2))
    for ours, theirs in zip(plain, replayed, strict=True):
        theirs.run_update = CudaGraph(theirs.update, theirs.changed, required=True)
        kept = []
        for step in range(WARM_UP + COMPARED + 2):
            wanted, got = ours.step(step), theirs.step(step)
            assert all(torch.equal(got[name], wanted[name]) for name in wanted)
            kept.append((got["loss"], got["loss"].item()))
        assert all(loss.item() == value for loss, value in kept)
        assert theirs.run_update.graph is not None
        assert_same(ours.state(), theirs.state())
        assert_same(tables_of(ours), tables_of(theirs))


def stale_inputs(graph, update):
    """Replay with the images of the capture."""
    pixels = graph.inputs[3].clone()
    return lambda: update(*graph.inputs[:3], pixels, graph.inputs[4])


def frozen_rate(graph, update):
    """Replay with the learning rate of the capture."""
    groups = update.__self__.adam.param_groups
    rates = [group["lr"] for group in groups]

    def again():
        now = [group["lr"] for group in groups]
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        outputs = update(*graph.inputs)
        for group, rate in zip(groups, now, strict=True):
            group["lr"] = rate
        return outputs

    return again


def no_class_codes(graph, update):
    """Replay without the update of the class table."""

    def again():
        stage = update.__self__
        kept = [part.clone() for part in stage.class_.state]
        outputs = update(*graph.inputs)
        for part, old in zip(stage.class_.state, kept, strict=True):
            part.copy_(old)
        return outputs

    return again


def cannot(graph, update):
    raise RuntimeError("operation not permitted\nwhen stream is capturing")


def assert_same_steps(ours, theirs):
    for step in range(WARM_UP + COMPARED + 2):
        wanted, got = ours.step(step), theirs.step(step)
        assert all(torch.equal(got[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (stale_inputs, "a replay differs from the eager step in "),
        (frozen_rate, "a replay differs from the eager step in networks"),
        (no_class_codes, "a replay differs from the eager step in class"),
        (cannot, "cannot be captured .operation not permitted when stream is capturing"),
    ],
)
def test_a_wrong_replay_is_noticed_and_leaves_no_trace(
    glyph_store, trained_run, cuda, monkeypatch, wrong, said
):
    def faulty(self, inputs):
        graph = capture(self, inputs)
        again = wrong(self, self.update)
        graph.again = lambda: self.outputs.update(again())
        return graph

    monkeypatch.setattr(CudaGraph, "_capture", faulty)
    config = replace(SMALL, lr=1e-2, steps=12)
    made = (next(stages(glyph_store, trained_run, config)) for _ in range(4))
    plain, theirs, again, strict = made
    theirs.run_update = CudaGraph(theirs.update, theirs.changed)
    with pytest.warns(UserWarning, match=f"without a CUDA graph, because .*{said}"):
        assert_same_steps(plain, theirs)
    for name, part in plain.state().items():
        assert all(torch.equal(theirs.state()[name][key], part[key]) for key in part)

    strict.run_update = CudaGraph(strict.update, strict.changed, required=True)
    with pytest.raises(ValueError, match=f"--cuda-graph on: .*{said}"):
        assert_same_steps(again, strict)


def test_the_host_reads_no_tensor_of_a_step(glyph_store, trained_run):
    seen = set()

    class Spy(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.add(function.overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    for stage in stages(glyph_store, trained_run):
        stage.step(0)
        with Spy():
            stage.step(1)
    assert "conv_transpose2d" in str(seen) or "convolution" in seen
    assert not HOST & seen


def test_cuda_graph_needs_cuda(glyph_store, tmp_path, capsys):
    run = ("train", str(glyph_store), "--run", str(tmp_path / "run"), *flags())
    assert main([*run, "--cuda-graph", "on"]) == 2
    assert "--cuda-graph on: needs --device cuda" in capsys.readouterr().err


def test_the_loader_copies_from_pinned_memory_without_waiting(glyph_store, monkeypatch):
    """Fakes of CUDA record that every tensor was pinned and copied without waiting."""
    pinned, sent, copies = set(), [], []

    def pin_memory(tensor):
        copies.append(tensor.numel())
        copy = tensor.clone()
        pinned.add(copy.data_ptr())
        return copy

    def pin_memory_of(tensor):
        pinned.add(tensor.data_ptr())
        return tensor

    def to(tensor, device, non_blocking=False):
        sent.append((tensor.data_ptr() in pinned, non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(torch.Tensor, "to", to)
    store = ImageStore(glyph_store)
    loader = Loader(store, EpochSampler(store.num_images, 16, 0), torch.device("cuda"))
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda t: t.data_ptr() in pinned)
    empty = torch.empty
    monkeypatch.setattr(
        torch, "empty", lambda *a, pin_memory=False, **k: (
            pin_memory_of(empty(*a, **k)) if pin_memory else empty(*a, **k)
        ),
    )  # fmt: skip
    image_ids, class_ids, pixels, by_class = loader.batch(0)
    assert torch.equal(by_class, torch.stack(torch.sort(class_ids, stable=True)))
    assert torch.equal(class_ids, store.class_ids[image_ids])
    assert torch.equal(pixels, store.images(image_ids))
    assert len(sent) >= 3
    assert set(sent) == {(True, True)}
    assert max(copies) < pixels.numel()  # the pixels were read into pinned memory at once


@pytest.mark.parametrize("where", ["cuda", "pinned"])
def test_store_devices_need_cuda(glyph_store, tmp_path, capsys, where):
    run = ("train", str(glyph_store), "--run", str(tmp_path / "run"), *flags())
    assert main([*run, "--store-device", where]) == 2
    assert f"--store-device {where}: needs --device cuda" in capsys.readouterr().err
