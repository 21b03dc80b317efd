"""Sets up the device, the precision, the threads and the memory allocator."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from lord_fast.config import MachineConfig
from lord_fast.launch import Launch, this_launch
from lord_fast.system import cpu_count

_M_MMAP_MAX, _M_TRIM_THRESHOLD, _M_ARENA_MAX = -4, -1, -8
"""glibc's names for parameters of mallopt(3)."""


@dataclass(frozen=True)
class Machine:
    """The device and precision that a command uses.

    Attributes:
        device: Device of the tensors.
        dtype: Autocast dtype of the convolutions.
        threads: Number of CPU threads.
        tf32: Whether CUDA rounds the inputs of float32 products to TF32's 10 bits of mantissa.
        why: The reason for the precision.
    """

    device: torch.device
    dtype: torch.dtype
    threads: int
    tf32: bool = False
    why: str = "as set"

    @property
    def precision(self) -> str:
        """The value of --precision, one of float32, tf32 and bf16."""
        return "tf32" if self.tf32 else {torch.bfloat16: "bf16"}.get(self.dtype, "float32")

    def describe(self) -> str:
        """Return one line for a run's header."""
        if self.device.type == "cuda":
            name = torch.cuda.get_device_name(self.device)
        elif self.device.type == "mps":
            name = f"Apple GPU (mps), {self.threads} threads"
        else:
            name = f"CPU ({torch.backends.cpu.get_cpu_capability()}), {self.threads} threads"
        return f"{name}, {self.precision} ({self.why})"


def set_up(device: str = "auto", precision: str = "auto", threads: int = 0) -> Machine:
    """Choose device and precision, set the number of threads, and keep freed memory in the process.

    Args:
        device: cpu, cuda, mps or auto. auto prefers cuda, then mps, then cpu.
        precision: auto, float32, tf32 or bf16. float32 means IEEE arithmetic, also on CUDA.
        threads: Number of CPU threads. 0 means one for each core that this process may use. The
            processes of torchrun share the cores and the GPUs of their machine.

    Raises:
        ValueError: The requested device is not available, or tf32 is requested without CUDA.
    """
    device = choose_device(device)
    if precision == "tf32" and device != "cuda":
        raise ValueError("--precision tf32: only CUDA supports it; use float32 or bf16")
    why = "as set"
    if precision == "auto":
        fast = has_fast_bf16(device)
        precision = "bf16" if fast else "float32"
        why = "fast here" if fast else "bf16 is not fast here"
    launch = this_launch()
    threads = set_threads(threads, launch.local_world)
    keep_freed_memory()
    use_tf32(precision == "tf32")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return Machine(_own_device(device, launch), dtype, threads, precision == "tf32", why)


def _own_device(device: str, launch: Launch) -> torch.device:
    """Return the device, and for a process of torchrun its own GPU if there are enough."""
    if device != "cuda" or not launch.by_torchrun:
        return torch.device(device)
    index = launch.local_rank % torch.cuda.device_count()
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def set_threads(threads: int, processes: int = 1) -> int:
    """Set the number of CPU threads and return it.

    Args:
        threads: The number, or 0 for one for each core.
        processes: Number of processes of this machine that share the cores.
    """
    threads = threads or max(cpu_count() // processes, 1)
    torch.set_num_threads(threads)
    return threads


def choose_device(device: str) -> str:
    """Return the device type for a value of --device, one of cpu, cuda and mps.

    mps is Apple's GPU. Its latent tables run on the reference kernels.

    Raises:
        ValueError: The requested device is not available.
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
    """Wait until a GPU has finished its work. On a CPU this does nothing."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


def use_tf32(wanted: bool) -> None:
    """Set whether CUDA may compute float32 products in TF32.

    PyTorch's default is TF32 for convolutions and IEEE for matrix products. This uses `allow_tf32`
    because torch.export fails if the newer `fp32_precision` is set.
    """
    torch.backends.cuda.matmul.allow_tf32 = wanted
    torch.backends.cudnn.allow_tf32 = wanted


@contextmanager
def ieee_float32(device: torch.device) -> Iterator[None]:
    """Compute float32 products on CUDA in IEEE arithmetic. Restore the caller's setting after."""
    if device.type != "cuda":
        yield
        return
    places = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "ieee"
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


def set_up_for(config: MachineConfig) -> Machine:
    """Call `set_up` with the options of a run.

    Raises:
        ValueError: The device or precision is not available.
    """
    return set_up(config.device, config.precision, config.threads)


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return an autocast context for a dtype. It is disabled for float32."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def has_fast_bf16(device: str) -> bool:
    """Return whether the device multiplies bf16 in hardware.

    A CPU without this support is 10-20 times slower with bf16. The result is False for mps, because
    bf16 was not measured there.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "mps":
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def keep_freed_memory() -> None:
    """Tell glibc not to return freed memory to the system between steps.

    By default glibc maps every tensor over 32 MB again at every step, and the system zeroes its
    pages at first touch. On 2 cores this makes the element-wise operations of a 64 px step three
    to five times as slow. With other C libraries this function does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_ARENA_MAX, 1)
