"""Loads the native library and chooses its instruction set."""

import ctypes
import sys
from ctypes import c_char_p, c_double, c_float, c_int, c_int64, c_uint64, c_void_p
from pathlib import Path

_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
LIBRARY = Path(__file__).with_name(f"liblord_fast_kernels{_SUFFIX}")
ABI_VERSION = 2
HOW_TO_BUILD = (
    "with CMake and GCC or Clang, run `python setup.py build_ext --inplace` in a checkout, or "
    "`pip install --force-reinstall --no-deps lord-fast`"
)

_TABLE = (c_void_p, c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int64)
_ADAM = (c_double, c_double, c_double, c_int64, c_int)
_SIGNATURES = {
    "lord_fast_gather": (
        *_TABLE, c_void_p, c_void_p, c_int64, c_void_p, c_int64, c_void_p, c_float, c_uint64,
        *_ADAM, c_void_p,
    ),
    "lord_fast_scatter_adam": (
        *_TABLE, c_void_p, c_void_p, c_int64, c_void_p, c_int64, c_void_p, *_ADAM,
    ),
    "lord_fast_leaky_adain": (
        *(c_void_p,) * 4, *(c_int64,) * 3, c_float, c_float, c_int, c_int, *(c_void_p,) * 3,
    ),
    "lord_fast_leaky_adain_backward": (
        *(c_void_p,) * 6, *(c_int64,) * 3, c_float, c_int, c_int, *(c_void_p,) * 4,
    ),
    "lord_fast_instructions": (c_char_p,),
}  # fmt: skip

_library: ctypes.CDLL | None = None


def load(path: Path | None = None) -> None:
    """Load the library, which all operators need. Later calls do nothing.

    Args:
        path: The library to load, even if one is loaded. Defaults to the one that `setup.py` built.

    Raises:
        ValueError: The library is not built, cannot be loaded or has another version.
    """
    global _library
    if _library is None or path is not None:
        _library = _open(LIBRARY if path is None else path)


def _open(path: Path) -> ctypes.CDLL:
    if not path.exists():
        raise ValueError(f"{path.name} is not built; {HOW_TO_BUILD}")
    try:
        library = ctypes.CDLL(str(path))
        version = library.lord_fast_abi_version()
    except (OSError, AttributeError) as error:
        raise ValueError(f"{path} cannot be loaded ({error}); {HOW_TO_BUILD}") from error
    if version != ABI_VERSION:
        raise ValueError(
            f"{path} has version {version} but version {ABI_VERSION} is needed; {HOW_TO_BUILD}"
        )
    for name, arguments in _SIGNATURES.items():
        getattr(library, name).argtypes = arguments
    library.lord_fast_instructions.restype = c_char_p
    return library


def functions() -> ctypes.CDLL:
    """The loaded library."""
    assert _library is not None
    return _library


def instructions() -> str:
    """The instruction set in use (baseline, avx2 or avx512)."""
    return functions().lord_fast_instructions(None).decode()


def use_instructions(name: str) -> bool:
    """Switch to another instruction set (baseline, avx2 or avx512). Only the tests need this.

    They compare the results of every instruction set that the machine supports.

    Returns:
        True if the library and this machine support it. Otherwise nothing changes.
    """
    return functions().lord_fast_instructions(name.encode()) is not None
