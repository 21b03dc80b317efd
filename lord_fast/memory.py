"""Memory: how much is free, and large pages for large tables."""

import ctypes
import os
import sys
from pathlib import Path

import torch
from torch import Tensor

PAGE = 2**21
_MADV_HUGEPAGE = 14
"""Linux's name for an advice of madvise(2)."""


def ask_for_huge_pages(tensor: Tensor) -> None:
    """Ask Linux to back a tensor that nothing was written to with pages of 2 MiB.

    The rows of a batch lie anywhere in a table: with pages of 4 KiB the processor spends as long
    finding a row's address as reading it, the longer the larger the table. Only an advice: on
    another system, device or setting of /sys/kernel/mm/transparent_hugepage nothing changes.
    """
    if not sys.platform.startswith("linux") or tensor.device.type != "cpu":
        return
    start = -(-tensor.data_ptr() // PAGE) * PAGE
    length = (tensor.data_ptr() + tensor.nbytes - start) // PAGE * PAGE
    if length > 0:
        madvise = ctypes.CDLL(None).madvise
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_HUGEPAGE)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # Not what is unused: Linux fills that with files, and gives it back when it is needed.
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
