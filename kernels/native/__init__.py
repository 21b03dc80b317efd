"""The C++ kernels for the CPU, in a shared library with a C interface that ctypes loads.

`setup.py` builds the library from this folder with CMake. The build does not need PyTorch. The
library chooses its instruction set when it is loaded. It divides rows among as many threads as
PyTorch uses, and the result is bitwise identical for any number of threads.

Tested on Linux with GCC and Clang, for x86-64 with every instruction set and for 64-bit Arm under
an emulator. macOS builds the library in the same way, but no Mac has run it. Windows needs Clang or
MinGW, which is not tested either. Where the library is not built, the reference runs.
"""

import ctypes
import sys
from ctypes import c_char_p, c_double, c_float, c_int, c_int64, c_uint64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from ..ops import replay_terms, require_columns

_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
LIBRARY = Path(__file__).with_name(f"liblord_fast_kernels{_SUFFIX}")
ABI_VERSION = 1
HOW_TO_BUILD = (
    "with CMake and GCC or Clang, run `python setup.py build_ext --inplace` in a checkout, or "
    "`pip install --force-reinstall --no-deps lord-fast`"
)

_ROW_OUT_OF_RANGE, _STEP_OUT_OF_RANGE, _ROW_AHEAD = 1, 2, 3
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
    "lord_fast_instructions": (c_char_p,),
}  # fmt: skip

_library: ctypes.CDLL | None = None


def load(path: Path | None = None) -> None:
    """Load the library, which `gather` and `scatter_adam_` need. Later calls do nothing.

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


def instructions() -> str:
    """The instruction set in use (baseline, avx2 or avx512)."""
    assert _library is not None
    return _library.lord_fast_instructions(None).decode()


def use_instructions(name: str) -> bool:
    """Switch to another instruction set (baseline, avx2 or avx512). Only the tests need this.

    They compare the results of every instruction set that the machine supports.

    Returns:
        True if the library and this machine support it. Otherwise nothing changes.
    """
    assert _library is not None
    return _library.lord_fast_instructions(name.encode()) is not None


def gather(
    weight: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, last_step: Tensor, rows: Tensor,
    lr: Tensor, step: Tensor, noise_ids: Tensor, std: float, seed: int,
    beta1: float, beta2: float, eps: float,
) -> Tensor:  # fmt: skip
    """See `lord_fast.kernels.gather`.

    Raises:
        ValueError: `step`, or the dtype, shape or layout of a tensor, breaks that contract.
        IndexError: A row is outside the table.
    """
    assert _library is not None
    _check(weight, exp_avg, exp_avg_sq, last_step, rows, lr, step)
    _require("noise_ids", noise_ids, torch.int64, rows.shape)
    rows, noise_ids = rows.contiguous(), noise_ids.contiguous()
    codes = weight.new_empty(rows.shape[0], weight.shape[1])
    status = _library.lord_fast_gather(
        weight.data_ptr(), exp_avg.data_ptr(), exp_avg_sq.data_ptr(), last_step.data_ptr(),
        *weight.shape, weight.stride(0), rows.data_ptr(), noise_ids.data_ptr(), rows.shape[0],
        lr.data_ptr(), lr.shape[0], step.data_ptr(), std, seed,
        beta1, beta2, eps, replay_terms(beta1, beta2), torch.get_num_threads(), codes.data_ptr(),
    )  # fmt: skip
    if status:
        _fail(status, weight, last_step, rows, lr, step)
    return codes


def scatter_adam_(
    weight: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, last_step: Tensor, rows: Tensor,
    grad: Tensor, lr: Tensor, step: Tensor, beta1: float, beta2: float, eps: float,
    unique: bool = False, by_row: Tensor | None = None,
) -> None:  # fmt: skip
    """See `lord_fast.kernels.scatter_adam_`. Nothing is written if an error is raised.

    `unique` and `by_row` are ignored. Sorting takes at most a few percent of a call, and without
    the sort a row that repeats would be a race between threads.

    Raises:
        ValueError: `step`, or the dtype, shape or layout of a tensor, breaks that contract.
        IndexError: A row is outside the table.
    """
    assert _library is not None
    _check(weight, exp_avg, exp_avg_sq, last_step, rows, lr, step)
    _require("grad", grad, torch.float32, (rows.shape[0], weight.shape[1]))
    rows, grad = rows.contiguous(), grad.contiguous()
    status = _library.lord_fast_scatter_adam(
        weight.data_ptr(), exp_avg.data_ptr(), exp_avg_sq.data_ptr(), last_step.data_ptr(),
        *weight.shape, weight.stride(0), rows.data_ptr(), grad.data_ptr(), rows.shape[0],
        lr.data_ptr(), lr.shape[0], step.data_ptr(),
        beta1, beta2, eps, replay_terms(beta1, beta2), torch.get_num_threads(),
    )  # fmt: skip
    if status:
        _fail(status, weight, last_step, rows, lr, step)


def _check(
    weight: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, last_step: Tensor, rows: Tensor,
    lr: Tensor, step: Tensor,
) -> None:  # fmt: skip
    if weight.dim() != 2 or rows.dim() != 1 or lr.dim() != 1:
        raise ValueError(
            f"weight {list(weight.shape)}, rows {list(rows.shape)}, lr {list(lr.shape)}: "
            f"expected [N, D], [B] and [total_steps]"
        )
    require_columns(weight)
    for name, tensor in (("weight", weight), ("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)):
        _require(name, tensor, torch.float32, weight.shape)
        if tensor.stride() != (weight.stride(0), 1):
            raise ValueError(
                f"{name}: has strides {tensor.stride()}, but the native kernels need contiguous "
                f"rows with the row stride of the weight"
            )
    _require("last_step", last_step, torch.int64, weight.shape[:1], contiguous=True)
    _require("rows", rows, torch.int64, rows.shape)
    _require("lr", lr, torch.float32, lr.shape, contiguous=True)
    _require("step", step, torch.int64, ())


def _require(
    name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...], contiguous: bool = False
) -> None:
    if tensor.dtype != dtype or tensor.shape != shape or not tensor.is_cpu:
        raise ValueError(
            f"{name}: {tensor.dtype} {list(tensor.shape)} on {tensor.device}, but the native "
            f"kernels take {dtype} {list(shape)} on the CPU; --kernels reference has no such limit"
        )
    if contiguous and not tensor.is_contiguous():
        raise ValueError(f"{name}: must be contiguous, but has strides {tensor.stride()}")


def _fail(
    status: int, weight: Tensor, last_step: Tensor, rows: Tensor, lr: Tensor, step: Tensor
) -> None:
    if status == _ROW_OUT_OF_RANGE:
        wrong = rows[(rows < 0) | (rows >= len(weight))][0].item()
        raise IndexError(f"rows: {wrong} is outside the table, which has {len(weight)} rows")
    if status == _STEP_OUT_OF_RANGE:
        raise ValueError(f"step: {step.item()} is outside the schedule, lr has {len(lr)} steps")
    if status == _ROW_AHEAD:
        last = last_step[rows]
        wrong = last[(last < 0) | (last > step)][0].item()
        raise ValueError(f"last_step: {wrong} is not between 0 and the current step {step.item()}")
    raise MemoryError("the native kernels ran out of memory")
