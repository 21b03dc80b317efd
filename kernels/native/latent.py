"""The two operators on a latent table, in C++."""

import torch
from torch import Tensor

from ..ops import replay_terms, require_columns
from .loader import functions

_ROW_OUT_OF_RANGE, _STEP_OUT_OF_RANGE, _ROW_AHEAD = 1, 2, 3


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
    _check(weight, exp_avg, exp_avg_sq, last_step, rows, lr, step)
    _require("noise_ids", noise_ids, torch.int64, rows.shape)
    rows, noise_ids = rows.contiguous(), noise_ids.contiguous()
    codes = weight.new_empty(rows.shape[0], weight.shape[1])
    status = functions().lord_fast_gather(
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
    _check(weight, exp_avg, exp_avg_sq, last_step, rows, lr, step)
    _require("grad", grad, torch.float32, (rows.shape[0], weight.shape[1]))
    rows, grad = rows.contiguous(), grad.contiguous()
    status = functions().lord_fast_scatter_adam(
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
