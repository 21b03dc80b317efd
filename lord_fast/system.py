"""What the operating system says about this machine. Nothing here imports torch."""

import importlib.metadata
import os


def cpu_count() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux; macOS and Windows do not have it
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def package_version(name: str) -> str | None:
    """The version of an installed distribution, or None.

    A module can be there without a distribution of its name: nightly, ROCm and Windows builds of
    Triton are distributed as pytorch-triton, pytorch-triton-rocm and triton-windows.
    """
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
