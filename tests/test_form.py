"""Tests of the rules that choose how a machine computes a stage, with stand-ins for machines."""

import re

import pytest
import torch
import yaml

from lord_fast import kernels
from lord_fast.bench.step import random_weights
from lord_fast.config import MachineConfig
from lord_fast.kernels import dispatch
from lord_fast.machine import Machine, set_up
from lord_fast.model.features import FeatureCache
from lord_fast.model.perceptual import VGG16
from lord_fast.presets import PRESETS
from lord_fast.run.config import load_config, options_from
from lord_fast.train import form
from lord_fast.train.form import Work, choose
from tests.test_train import train

CPU = Machine(torch.device("cpu"), torch.float32, 2)
CPU_BF16 = Machine(torch.device("cpu"), torch.bfloat16, 2)
CUDA = Machine(torch.device("cuda"), torch.bfloat16, 2)
MPS = Machine(torch.device("mps"), torch.float32, 2)
LONG = Work(100_000, 64, 10_000, 1 << 20)
NAMES = ("compile", "cuda_graph", "cache_target_features", "cudnn_benchmark")


@pytest.fixture(autouse=True)
def machine_with_everything(monkeypatch):
    monkeypatch.setattr(form, "free_memory", lambda device: 100 << 30)
    monkeypatch.setattr(form.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(form.importlib.util, "find_spec", lambda name: name)
    live = {"cuda": dispatch.Live("triton", "Triton 3"), "cpu": dispatch.Live("native", "avx2")}
    monkeypatch.setattr(form.kernels, "live", lambda d: live.get(d, dispatch.Live("reference", "")))
    return live


def chosen(machine, work=LONG, **flags) -> dict[str, bool]:
    found = choose(MachineConfig(**flags), machine, work)
    assert all(getattr(found, name).why for name in NAMES)
    return {name: getattr(found, name).on for name in NAMES}


def test_every_machine_has_its_form():
    everything = dict.fromkeys(NAMES, True)
    cached = {**dict.fromkeys(NAMES, False), "cache_target_features": True}
    assert chosen(CUDA) == everything
    assert chosen(CPU) == cached
    assert chosen(CPU_BF16) == {**cached, "compile": True}
    assert chosen(MPS) == cached


def test_short_trainings_are_not_compiled():
    short = Work(form.COMPILED_STEPS_CUDA - 1, 4, 100, 1 << 20)
    assert not chosen(CUDA, short)["compile"]
    assert chosen(CUDA, Work(form.COMPILED_STEPS_CUDA, 4, 100, 1 << 20))["compile"]
    assert not chosen(CPU_BF16, Work(form.COMPILED_IMAGES_CPU // 8 - 1, 8, 100, 1))["compile"]
    assert chosen(CPU_BF16, Work(form.COMPILED_IMAGES_CPU // 8, 8, 100, 1))["compile"]


def test_the_demo_is_eager_on_every_cpu():
    """A demo computes the same bits with and without bf16 in the machine's other choices."""
    demo = Work(6000, PRESETS["demo"].batch_size, 3720, None)
    for machine in (CPU, CPU_BF16):
        assert not any(chosen(machine, demo).values())


def test_without_a_compiler_or_triton_nothing_is_compiled(monkeypatch, machine_with_everything):
    monkeypatch.setattr(form.shutil, "which", lambda name: None)
    assert not chosen(CPU_BF16)["compile"]
    with pytest.raises(ValueError, match=r"--compile on: needs a C\+\+ compiler .*install it"):
        chosen(CPU, compile="on")
    monkeypatch.setattr(form.importlib.util, "find_spec", lambda name: None)
    assert not chosen(CUDA)["compile"]
    with pytest.raises(ValueError, match="--compile on: needs Triton"):
        chosen(CUDA, compile="on")


def test_a_cuda_graph_needs_the_triton_kernels_and_pytorchs_adam(machine_with_everything):
    with pytest.raises(ValueError, match="--cuda-graph on: needs --device cuda, and this is cpu"):
        chosen(CPU, cuda_graph="on")
    apex = Work(100, 4, 100, None, "apex")
    assert not chosen(CUDA, apex)["cuda_graph"]
    with pytest.raises(ValueError, match="--cuda-graph on: not with --optimizer apex"):
        chosen(CUDA, apex, cuda_graph="on")
    several = Work(100, 4, 100, None, virtual_ranks=4)
    assert not chosen(CUDA, several)["cuda_graph"]
    with pytest.raises(ValueError, match="--cuda-graph on: not with several --virtual-ranks"):
        chosen(CUDA, several, cuda_graph="on")
    machine_with_everything["cuda"] = dispatch.Live("reference", "--kernels reference")
    assert not chosen(CUDA)["cuda_graph"]
    with pytest.raises(ValueError, match=r"the reference .* needs --kernels triton"):
        chosen(CUDA, cuda_graph="on")


def test_features_are_cached_if_they_fit_and_are_used_twice(monkeypatch):
    assert not chosen(CPU, Work(100, 4, 201, 1))["cache_target_features"]
    assert chosen(CPU, Work(100, 4, 200, 1))["cache_target_features"]
    monkeypatch.setattr(form, "free_memory", lambda device: 4000)
    assert chosen(CPU, Work(100, 4, 100, 10))["cache_target_features"]
    assert not chosen(CPU, Work(100, 4, 100, 11))["cache_target_features"]
    with pytest.raises(ValueError, match=r"--cache-target-features on: .* needs --loss vgg16"):
        chosen(CPU, Work(100, 4, 100, None), cache_target_features="on")


@pytest.mark.parametrize("switch", ["on", "off"])
def test_flags_override_the_rules(switch):
    flags = dict.fromkeys(NAMES, switch)
    assert set(chosen(CUDA, **flags).values()) == {switch == "on"}
    assert "as set" in choose(MachineConfig(**flags), CUDA, LONG).describe(cuda=True)


def test_the_header_names_what_the_machine_has():
    on_cpu = choose(MachineConfig(), CPU, LONG).describe(cuda=False)
    assert "compile off (slower on a CPU in float32)" in on_cpu
    assert "cached features on (9.8 of 100.0 GiB of free memory)" in on_cpu
    assert "CUDA" not in on_cpu
    on_cuda = choose(MachineConfig(), CUDA, LONG).describe(cuda=True)
    assert "CUDA graph on" in on_cuda
    assert "cuDNN benchmark on" in on_cuda
    assert "no CUDA" in choose(MachineConfig(cudnn_benchmark="on"), CPU, LONG).describe(cuda=False)


@pytest.mark.parametrize("taps", [("relu1_2", "relu3_2"), ("relu2_2", "pool5"), ("relu4_3",)])
def test_the_bytes_of_features_are_those_of_the_cache(taps):
    vgg = VGG16(random_weights(), taps, "unit")
    cache = FeatureCache(vgg, [torch.rand(1, 3, 32, 32)], 1)
    assert vgg.feature_bytes(32, torch.float32) == sum(kept.nbytes for kept in cache.maps)
    assert vgg.feature_bytes(32, torch.bfloat16) * 2 == vgg.feature_bytes(32, torch.float32)


def test_a_run_keeps_the_choices_of_its_first_start(glyph_store, tmp_path, monkeypatch, capsys):
    """The rule would choose otherwise when it resumes, as on another machine."""
    run, rule = tmp_path / "run", form._compile
    assert train(glyph_store, run, "--compile", "off", "--steps", "8") == 0
    kept = load_config(run / "config.yaml")[0].machine
    assert (kept.compile, kept.cache_target_features, kept.cuda_graph) == ("off", "off", "auto")
    asked = []
    monkeypatch.setattr(form, "_compile", lambda *a: asked.append(a[0]) or rule("off", *a[1:]))
    assert train(glyph_store, run, "--steps", "16") == 0
    assert asked == ["off"]
    assert train(glyph_store, tmp_path / "other", "--steps", "8") == 0
    assert asked == ["off", "auto"]
    assert train(glyph_store, run, "--steps", "24", "--compile", "auto") == 0
    assert asked[-1] == "off"
    assert "compile off" in capsys.readouterr().err


@pytest.mark.parametrize(("old", "new"), [(True, "on"), (False, "off"), ("auto", "auto")])
def test_switches_of_older_files_are_read(tmp_path, old, new):
    file = tmp_path / "options.yaml"
    file.write_text(yaml.safe_dump(dict.fromkeys(NAMES, old)))
    machine = options_from(file).machine
    assert {getattr(machine, name) for name in NAMES} == {new}
    file.write_text("compile: maybe\n")
    with pytest.raises(ValueError, match="compile: 'maybe'"):
        options_from(file)


def test_a100_is_an_alias_of_paper_on_cuda():
    ours, paper = PRESETS["a100"], PRESETS["paper"]
    assert (ours.model, ours.loss, ours.adam) == (paper.model, paper.loss, paper.adam)
    assert (ours.machine.device, ours.machine.precision) == ("cuda", "bf16")


def test_the_reason_for_the_precision_is_printed():
    assert re.search(r"(bf16 \(fast here\)|float32 \(bf16 is not fast here\))", str(
        set_up("cpu").describe()
    ))  # fmt: skip
    assert "float32 (as set)" in set_up("cpu", "float32").describe()


def test_missing_triton_on_cuda_is_a_warning(monkeypatch):
    monkeypatch.setattr(dispatch, "_told", set())
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda name: None)
    try:
        with pytest.warns(RuntimeWarning, match=r"reference kernels on CUDA: .*pip install"):
            kernels.use("auto", "cuda")
    finally:
        monkeypatch.undo()
        kernels.use("auto")
