"""Measures free memory and requests huge pages for large tables."""

import ctypes
import sys

import psutil
import torch
from torch import Tensor

PAGE = 2**21
_MADV_HUGEPAGE = 14
"""Value of MADV_HUGEPAGE for madvise(2) on Linux."""


def ask_for_huge_pages(tensor: Tensor) -> None:
    """Ask Linux to back a tensor with pages of 2 MiB. Call this before anything is written to it.

    The rows of a batch are scattered over a table. With pages of 4 KiB, translating a row's address
    takes as long as reading the row, and longer in larger tables. The request has no effect on
    other systems and devices, or if /sys/kernel/mm/transparent_hugepage/enabled is set to never.
    """
    if not sys.platform.startswith("linux") or tensor.device.type != "cpu":
        return
    start = -(-tensor.data_ptr() // PAGE) * PAGE
    length = (tensor.data_ptr() + tensor.nbytes - start) // PAGE * PAGE
    if length > 0:
        madvise = ctypes.CDLL(None).madvise
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_HUGEPAGE)


def free_memory(device: torch.device) -> int:
    """Return the number of bytes that can still be allocated on a device.

    On a CPU this includes the file cache, which the system frees when memory is needed. An Apple
    GPU shares its memory with the CPU.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
