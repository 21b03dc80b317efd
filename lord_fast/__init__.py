"""lord-fast: a fast, trustworthy trainer of LORD (Gabbay & Hoshen, ICLR 2020)."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

__all__ = ["Lord", "__version__"]

if TYPE_CHECKING:
    from lord_fast.lord import Lord

try:
    __version__ = version("lord-fast")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "unknown"

_KERNELS = Path(__file__).with_name("kernels")
if not _KERNELS.is_dir():
    raise ImportError(
        f"{_KERNELS} is not a folder: this checkout lost its symbolic link. In the checkout, run: "
        f"git config core.symlinks true && git checkout -- lord_fast/kernels "
        f"(Windows: turn Developer Mode on first)"
    )


def __getattr__(name: str):
    """Import `Lord` on first use, so that the command line starts without importing torch."""
    if name == "Lord":
        from lord_fast.lord import Lord

        return Lord
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
