"""Memory: how much is free, and large pages for large tables."""

import ctypes
import sys

import psutil
import torch
from torch import Tensor

PAGE = 2**21
_MADV_HUGEPAGE = 14
"""Linux's name for an advice of madvise(2)."""


def ask_for_huge_pages(tensor: Tensor) -> None:
    """Ask Linux to back a tensor that nothing was written to with pages of 2 MiB.

    The rows of a batch lie anywhere in a table. With pages of 4 KiB the processor spends as long
    finding a row's address as reading it, and longer for larger tables. This is only an advice:
    nothing changes on another system or device, or where
    /sys/kernel/mm/transparent_hugepage/enabled says never.
    """
    if not sys.platform.startswith("linux") or tensor.device.type != "cpu":
        return
    start = -(-tensor.data_ptr() // PAGE) * PAGE
    length = (tensor.data_ptr() + tensor.nbytes - start) // PAGE * PAGE
    if length > 0:
        madvise = ctypes.CDLL(None).madvise
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_HUGEPAGE)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device.

    On a CPU that includes the file cache, which the system gives back when it is needed. An Apple
    GPU shares its memory with the CPU.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
