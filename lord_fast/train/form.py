"""Chooses the form in which this machine computes a stage, with the reason for each choice.

A recipe says what is learnt and a form says how. Each rule takes the flag's value if it is on or
off. The choices that change the rounding of a step are written to the run's configuration at its
first start and kept when it resumes.
"""

import importlib.util
import os
import shutil
from dataclasses import dataclass

import torch

from lord_fast import kernels
from lord_fast.config import MachineConfig, Switch
from lord_fast.machine import Machine
from lord_fast.memory import free_memory

RECORDED = ("precision", "compile", "cache_target_features", "cudnn_benchmark")
"""Options whose choice a run keeps, because they change rounding."""
COMPILED_IMAGES_CPU = 50_000
"""Images of a stage from which compiling repays itself on a CPU with bf16 and VGG16. Compiling
takes half a minute. It saved about a tenth of the step's time before AdaIN had its C++ operator.
With it, 2 % was measured at 32 px (docs/benchmarks.md)."""
COMPILED_STEPS_CUDA = 5_000
"""Steps from which compiling repays itself on CUDA. This assumes 8 ms saved per step, which is a
figure on paper (docs/benchmarks.md)."""
SHARE_OF_MEMORY = 0.25
"""Fraction of the free memory that automatically cached features may take."""


@dataclass(frozen=True)
class Work:
    """What a stage has to compute, as far as the rules depend on it.

    Attributes:
        steps: Number of steps.
        batch_size: Images per step.
        num_images: Number of training images.
        feature_bytes: Bytes of the VGG16 features of one image, or None if the loss has none.
        optimizer: torch or apex.
        virtual_ranks: Parts of a batch.
    """

    steps: int
    batch_size: int
    num_images: int
    feature_bytes: int | None
    optimizer: str = "torch"
    virtual_ranks: int = 1


@dataclass(frozen=True)
class Choice:
    """Whether something is on, and why. `set` is whether a flag or the run's file decided it."""

    on: bool
    why: str
    set: bool = False


@dataclass(frozen=True)
class Form:
    """The form of a stage.

    Attributes:
        compile: Whether torch.compile compiles the step.
        cuda_graph: Whether the step is captured as a CUDA graph.
        cache_target_features: Whether the features of all images are kept in memory.
        cudnn_benchmark: Whether cuDNN times its algorithms.
    """

    compile: Choice
    cuda_graph: Choice
    cache_target_features: Choice
    cudnn_benchmark: Choice

    def recorded(self) -> dict[str, Switch]:
        """Return the choices that a run keeps, as options."""
        return {
            name: "on" if choice.on else "off"
            for name, choice in vars(self).items()
            if name in RECORDED
        }

    def describe(self, cuda: bool) -> str:
        """Return the choices and their reasons for a run's header.

        Args:
            cuda: Whether the stage runs on CUDA. Elsewhere the choices that only CUDA has are left
                out unless a flag asks for them.
        """
        names = ("compile", "cuda_graph", "cudnn_benchmark", "cache_target_features")
        words = ("compile", "CUDA graph", "cuDNN benchmark", "cached features")
        found = []
        for name, word in zip(names, words, strict=True):
            choice: Choice = getattr(self, name)
            if cuda or choice.set or name not in ("cuda_graph", "cudnn_benchmark"):
                found.append(f"{word} {'on' if choice.on else 'off'} ({choice.why})")
        return ", ".join(found)


def choose(config: MachineConfig, machine: Machine, work: Work) -> Form:
    """Choose the form of a stage.

    Args:
        config: The machine options. on and off are taken as they are.
        machine: Device and precision.
        work: What the stage has to compute.

    Raises:
        ValueError: A flag asks for something that this machine or this stage cannot do.
    """
    return Form(
        compile=_compile(config.compile, machine, work),
        cuda_graph=_cuda_graph(config.cuda_graph, machine, work),
        cache_target_features=_cache(config.cache_target_features, machine, work),
        cudnn_benchmark=_cudnn_benchmark(config.cudnn_benchmark, machine),
    )


def _compile(switch: Switch, machine: Machine, work: Work) -> Choice:
    device, missing = machine.device.type, missing_for_compile(machine.device.type)
    if switch == "on" and missing:
        raise ValueError(f"--compile on: {missing}; install it, or use --compile off")
    if switch != "auto":
        return _as_set(switch)
    if missing:
        return Choice(False, missing)
    if device == "cuda":
        enough = work.steps >= COMPILED_STEPS_CUDA
        least = f"{COMPILED_STEPS_CUDA:,} steps"
    elif device != "cpu":
        return Choice(False, f"not tried on {device}")
    elif machine.dtype != torch.bfloat16:
        return Choice(False, "slower on a CPU in float32")
    elif work.feature_bytes is None:
        return Choice(False, "little to gain on a CPU without VGG16")
    else:
        enough = work.steps * work.batch_size >= COMPILED_IMAGES_CPU
        least = f"{COMPILED_IMAGES_CPU:,} images"
    return Choice(enough, f"repays half a minute from {least}")


def missing_for_compile(device: str) -> str:
    """Return what torch.compile lacks on a device type, or "" if it lacks nothing."""
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        return "needs Triton"
    if device == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
        return "needs a C++ compiler such as g++"
    return ""


def _cuda_graph(switch: Switch, machine: Machine, work: Work) -> Choice:
    device, live = machine.device.type, kernels.live(machine.device.type)
    wrong = ""
    if device != "cuda":
        wrong = f"needs --device cuda, and this is {device}"
    elif live.name == "reference":
        wrong = f"the {live} kernels read tensors on the host; it needs --kernels triton"
    elif work.optimizer == "apex":
        wrong = "not with --optimizer apex; use --optimizer torch, the default"
    elif work.virtual_ranks > 1:
        wrong = "not with several --virtual-ranks"
    if switch == "on" and wrong:
        raise ValueError(f"--cuda-graph on: {wrong}")
    if switch != "auto":
        return _as_set(switch)
    return Choice(not wrong, wrong or "after a comparison with the eager step")


def _cache(switch: Switch, machine: Machine, work: Work) -> Choice:
    if work.feature_bytes is None:
        if switch == "on":
            raise ValueError(
                "--cache-target-features on: this loss has no features; it needs --loss vgg16"
            )
        return Choice(False, "only for --loss vgg16", switch == "off")
    if switch != "auto":
        return _as_set(switch)
    if work.steps * work.batch_size < 2 * work.num_images:
        return Choice(False, "fewer than two passes over the images")
    needed, free = work.num_images * work.feature_bytes, free_memory(machine.device)
    size = f"{needed / 2**30:.1f} of {free / 2**30:.1f} GiB of free memory"
    return Choice(needed <= SHARE_OF_MEMORY * free, size)


def _cudnn_benchmark(switch: Switch, machine: Machine) -> Choice:
    if machine.device.type != "cuda":
        return Choice(False, "no CUDA", switch == "on")
    return _as_set(switch) if switch != "auto" else Choice(True, "steps have the same shapes")


def _as_set(switch: Switch) -> Choice:
    return Choice(switch == "on", "as set", True)
