"""Asks the operating system about this machine, without importing torch."""

import importlib.metadata
import os

INFERENCE_BATCH = 64
"""Number of images that a network or a metric processes at a time outside training."""


def cpu_count() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # only on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def package_version(name: str) -> str | None:
    """Return the version of an installed distribution, or None.

    A module can be installed by a distribution with another name. For example, nightly, ROCm and
    Windows builds of Triton are called pytorch-triton, pytorch-triton-rocm and triton-windows.
    """
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
