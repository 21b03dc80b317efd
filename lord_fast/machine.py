"""The machine a command runs on: device, precision, threads and the memory allocator."""

import ctypes
import sys
from dataclasses import dataclass

import torch

from lord_fast.config import MachineConfig
from lord_fast.system import cpu_count

_M_MMAP_MAX, _M_TRIM_THRESHOLD, _M_ARENA_MAX = -4, -1, -8
"""glibc's names for parameters of mallopt(3)."""


@dataclass(frozen=True)
class Machine:
    """What was found and chosen.

    Attributes:
        device: Where tensors live.
        dtype: Type of the convolutions under autocast.
        threads: CPU threads.
        tf32: Whether CUDA rounds the inputs of float32 products to TF32's 10 bits of mantissa.
    """

    device: torch.device
    dtype: torch.dtype
    threads: int
    tf32: bool = False

    @property
    def precision(self) -> str:
        """As --precision names it: float32, tf32 or bf16."""
        return "tf32" if self.tf32 else {torch.bfloat16: "bf16"}.get(self.dtype, "float32")

    def describe(self) -> str:
        """One line for a run's header."""
        if self.device.type == "cuda":
            name = torch.cuda.get_device_name(self.device)
        elif self.device.type == "mps":
            name = f"Apple GPU (mps), {self.threads} threads"
        else:
            name = f"CPU ({torch.backends.cpu.get_cpu_capability()}), {self.threads} threads"
        return f"{name}, {self.precision}"


def set_up(device: str = "auto", precision: str = "auto", threads: int = 0) -> Machine:
    """Choose device and precision, set the threads, and keep freed memory in the process.

    Args:
        device: auto (cuda if there is one, then mps, then cpu), cpu, cuda or mps.
        precision: auto, float32 (IEEE's, also on CUDA), tf32 or bf16.
        threads: 0: one for each core this process may use.

    Raises:
        ValueError: `cuda` or `mps` is asked for and there is none, or tf32 without CUDA.
    """
    device = choose_device(device)
    if precision == "tf32" and device != "cuda":
        raise ValueError("--precision tf32: only CUDA has it; take float32 or bf16")
    fast = has_fast_bf16(device)
    if precision == "auto":
        precision = "bf16" if fast else "float32"
    threads = threads or cpu_count()
    torch.set_num_threads(threads)
    keep_freed_memory()
    use_tf32(precision == "tf32")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return Machine(torch.device(device), dtype, threads, precision == "tf32")


def choose_device(device: str) -> str:
    """Type of the device for --device: cpu, cuda or mps.

    mps is Apple's GPU. Its latent tables run on the reference kernels.

    Raises:
        ValueError: `cuda` or `mps` is asked for and there is none.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: this PyTorch sees no GPU; see lord-fast doctor")
    if device == "mps" and not torch.backends.mps.is_available():
        raise ValueError("--device mps: this PyTorch sees no Apple GPU; see lord-fast doctor")
    return device


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given. A CPU never has to wait."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


def use_tf32(wanted: bool) -> None:
    """Say whether CUDA may compute float32 products in TF32.

    PyTorch's own default is TF32 for convolutions and IEEE for matrix products. Its newer
    `fp32_precision` stops torch.export, which asks for `allow_tf32` and finds the two at odds.
    """
    torch.backends.cuda.matmul.allow_tf32 = wanted
    torch.backends.cudnn.allow_tf32 = wanted


def set_up_for(config: MachineConfig) -> Machine:
    """`set_up` with the options of a run.

    Raises:
        ValueError: see `set_up`; or a CUDA graph is asked for without CUDA.
    """
    machine = set_up(config.device, config.precision, config.threads)
    if config.cuda_graph and machine.device.type != "cuda":
        raise ValueError(f"--cuda-graph: needs --device cuda, and this is {machine.device.type}")
    return machine


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """What convolutions of a type run under."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def has_fast_bf16(device: str) -> bool:
    """Whether the device multiplies bf16 in hardware (a CPU without it is 10-20 times slower).

    mps counts as without: nothing was measured there, and float32 is the safe choice.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "mps":
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def keep_freed_memory() -> None:
    """Tell glibc not to hand freed memory back to the system between steps.

    By default every tensor over 32 MB is mapped anew and its pages are zeroed by the kernel at
    first touch, at every step: on 2 cores the element-wise operations of a 64 px step take three
    to five times as long. Other C libraries: nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_ARENA_MAX, 1)
