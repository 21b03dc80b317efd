"""Finds out what this machine has, and says what is missing and how to get it."""

import importlib.util
import platform
import shutil

import torch

from lord_fast import kernels
from lord_fast.machine import has_fast_bf16
from lord_fast.system import cpu_count, package_version

PACKAGES = (
    "torch", "triton", "nvidia-dali-cuda130", "nvidia-dali-cuda120", "tensorboard", "onnx", "wandb",
    "mlflow", "trackio", "gradio", "pillow-heif",
)  # fmt: skip


def findings() -> list[tuple[str, str]]:
    """Return pairs of an item and what was found about it."""
    return [*_machine(), *((name, version(name)) for name in PACKAGES)]


def version(name: str) -> str:
    """Return the version of a package, or a note if it is missing or has no metadata."""
    known = package_version(name)
    if known is not None:
        return known
    is_module = name.isidentifier() and importlib.util.find_spec(name) is not None
    return "installed, version unknown" if is_module else "not installed"


def cuda_kernels() -> str:
    """Return the kernels on CUDA, and what Triton lacks to launch its kernels on this machine."""
    live = str(kernels.live("cuda"))
    if torch.cuda.is_available():
        try:
            kernels.probe("cuda")
        except ValueError as error:
            return f"{live}, but {error}"
    return live


def _machine() -> list[tuple[str, str]]:
    threads = cpu_count()
    bf16 = "fast" if has_fast_bf16("cpu") else "slow (--precision auto uses float32)"
    cpu = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {threads} cores"
    gpu = "PyTorch finds none"
    if torch.cuda.is_available():
        capability = ".".join(map(str, torch.cuda.get_device_capability()))
        gpu = f"{torch.cuda.get_device_name()}, sm {capability}, CUDA {torch.version.cuda}"
    elif torch.backends.mps.is_available():
        gpu = f"Apple GPU (mps), latent tables on {kernels.live('mps')}"
    compiler = (
        shutil.which("g++") or shutil.which("c++") or "none: --compile on needs one on the CPU"
    )
    return [
        ("python", platform.python_version()),
        ("cpu", f"{cpu}, bf16 {bf16}"),
        ("gpu", gpu),
        ("kernels, cpu", str(kernels.live("cpu"))),
        ("kernels, cuda", cuda_kernels()),
        ("c++ compiler", compiler),
    ]
