"""The two operators on CUDA. Each is one launch, with one program per row and one pass over memory.

A row of up to 128 columns is held by a program of one warp. Each lane holds 4 adjacent columns, so
every load and store of a row moves 16 bytes per lane. Values that depend only on the row are
scalars. Only a batch that names few rows very often takes four warps per row, which sum its
gradients together.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..ops import replay_terms
from .noise import gaussians
from .replay import one_minus_power, replay

MAX_DIM = 1024
LONG = 32
"""Mean number of gradients per row of the table from which four warps sum them together."""
UNROLL = tl.constexpr(4)  # gradients of a repeated row that are loaded at the same time
# These are read one element at a time. Specializing on their alignment would compile a second
# kernel for no gain.
SCALARS = ["last_step_ptr", "rows_ptr", "order_ptr", "noise_ids_ptr", "lr_ptr", "step_ptr"]


@triton.jit(do_not_specialize=["seed"], do_not_specialize_on_alignment=SCALARS)
def gather_kernel(
    weight_ptr, exp_avg_ptr, exp_avg_sq_ptr, last_step_ptr, rows_ptr, lr_ptr, step_ptr,
    noise_ids_ptr, codes_ptr, std, seed,
    BETA1: tl.constexpr, BETA2: tl.constexpr, EPS: tl.constexpr, TERMS: tl.constexpr,
    NOISE: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gather the code of one slot of the batch."""
    slot = tl.program_id(0).to(tl.int64)
    row = tl.load(rows_ptr + slot)
    column = tl.arange(0, BLOCK_D)
    inside = column < DIM
    at = row * DIM + column

    weight = tl.load(weight_ptr + at, mask=inside, other=0.0)
    exp_avg = tl.load(exp_avg_ptr + at, mask=inside, other=0.0)
    exp_avg_sq = tl.load(exp_avg_sq_ptr + at, mask=inside, other=0.0)
    last_step = tl.load(last_step_ptr + row)
    step = tl.load(step_ptr)
    codes, _, _ = replay(
        weight, exp_avg, exp_avg_sq, last_step, step - last_step, lr_ptr, BETA1, BETA2, EPS, TERMS
    )
    if NOISE:
        codes += std * gaussians(tl.load(noise_ids_ptr + slot), step, seed, BLOCK_D)
    tl.store(codes_ptr + slot * DIM + column, codes, mask=inside)


@triton.jit
def _repeats(
    grad, grad_ptr, rows_ptr, order_ptr, slot, row, owner, inside, column, batch, DIM: tl.constexpr
):
    """Add the gradients of the later slots that name the same row, in batch order.

    `rows` is sorted, so the slots of a row are adjacent. `order` maps slots to batch positions.
    """
    more = owner
    while more:
        for _ in tl.static_range(UNROLL):
            slot += 1
            more = more & (tl.load(rows_ptr + slot, mask=slot < batch, other=-1) == row)
            source = tl.load(order_ptr + slot, mask=more, other=0)
            grad += tl.load(grad_ptr + source * DIM + column, mask=more & inside, other=0.0)
    return grad


@triton.jit
def _long_segment(
    grad_ptr, rows_ptr, order_ptr, slot, row, owner, batch,
    TILE: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Sum the gradients of all slots that name the row, TILE at a time.

    Slot s of the segment is added to partial sum s modulo TILE. This order is the same every run.
    """
    column = tl.arange(0, BLOCK_D)[None, :]
    slots = slot + tl.arange(0, TILE)
    total = tl.zeros((TILE, BLOCK_D), tl.float32)
    more = owner
    while more:
        same = tl.load(rows_ptr + slots, mask=slots < batch, other=-1) == row
        source = tl.load(order_ptr + slots, mask=same, other=0)
        at = source[:, None] * DIM + column
        total += tl.load(grad_ptr + at, mask=same[:, None] & (column < DIM), other=0.0)
        more = tl.sum(same.to(tl.int32)) == TILE
        slots += TILE
    return tl.sum(total, 0)


@triton.jit(do_not_specialize=["batch"], do_not_specialize_on_alignment=SCALARS)
def scatter_adam_kernel(
    weight_ptr, exp_avg_ptr, exp_avg_sq_ptr, last_step_ptr, rows_ptr, order_ptr, grad_ptr, lr_ptr,
    step_ptr, batch,
    BETA1: tl.constexpr, BETA2: tl.constexpr, EPS: tl.constexpr, TERMS: tl.constexpr,
    UNIQUE: tl.constexpr, TILE: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Update the row of one slot. If a row repeats, only its first slot updates it."""
    slot = tl.program_id(0).to(tl.int64)
    row = tl.load(rows_ptr + slot)
    if UNIQUE:
        owner, source = slot < batch, slot
    else:
        owner = tl.load(rows_ptr + slot - 1, mask=slot > 0, other=-1) != row
        source = tl.load(order_ptr + slot)
    column = tl.arange(0, BLOCK_D)
    inside = owner & (column < DIM)
    at = row * DIM + column

    step = tl.load(step_ptr)
    last_step = tl.load(last_step_ptr + row, mask=owner, other=step)
    weight = tl.load(weight_ptr + at, mask=inside, other=0.0)
    exp_avg = tl.load(exp_avg_ptr + at, mask=inside, other=0.0)
    exp_avg_sq = tl.load(exp_avg_sq_ptr + at, mask=inside, other=0.0)
    if TILE > 1:
        grad = _long_segment(
            grad_ptr, rows_ptr, order_ptr, slot, row, owner, batch, TILE, DIM, BLOCK_D
        )
    else:
        grad = tl.load(grad_ptr + source * DIM + column, mask=inside, other=0.0)
        if not UNIQUE:
            grad = _repeats(
                grad, grad_ptr, rows_ptr, order_ptr, slot, row, owner, inside, column, batch, DIM
            )

    weight, exp_avg, exp_avg_sq = replay(
        weight, exp_avg, exp_avg_sq, last_step, step - last_step, lr_ptr, BETA1, BETA2, EPS, TERMS
    )
    exp_avg = BETA1 * exp_avg + (1 - BETA1) * grad
    exp_avg_sq = BETA2 * exp_avg_sq + (1 - BETA2) * grad * grad
    root_correction = tl.sqrt(one_minus_power(step + 1, BETA2))
    size = tl.load(lr_ptr + step) * root_correction / one_minus_power(step + 1, BETA1)
    weight -= size * tl.div_rn(exp_avg, tl.sqrt_rn(exp_avg_sq) + EPS * root_correction)

    tl.store(weight_ptr + at, weight, mask=inside)
    tl.store(exp_avg_ptr + at, exp_avg, mask=inside)
    tl.store(exp_avg_sq_ptr + at, exp_avg_sq, mask=inside)
    tl.debug_barrier()  # all warps must read last_step before any of them writes it
    tl.store(last_step_ptr + row, step + 1, mask=owner)


def gather(
    weight: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, last_step: Tensor, rows: Tensor,
    lr: Tensor, step: Tensor, noise_ids: Tensor, std: float, seed: int,
    beta1: float, beta2: float, eps: float,
) -> Tensor:  # fmt: skip
    """See `lord_fast.kernels.gather`. Takes float32 tables of up to 1,024 columns.

    The rows of the table may lie in page-locked host memory, which the GPU reads in place.
    """
    shape = _shape(weight, exp_avg, exp_avg_sq, last_step)
    codes = torch.empty(len(rows), weight.shape[1], device=rows.device)
    if len(rows) == 0:
        return codes
    with torch.cuda.device_of(rows):
        gather_kernel[(len(rows),)](
            weight, exp_avg, exp_avg_sq, last_step, rows.contiguous(), lr, step,
            noise_ids.contiguous(), codes, std, seed,
            NOISE=std > 0, **_constants(beta1, beta2, eps), **shape,
        )  # fmt: skip
    return codes


def scatter_adam_(
    weight: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, last_step: Tensor, rows: Tensor,
    grad: Tensor, lr: Tensor, step: Tensor, beta1: float, beta2: float, eps: float,
    unique: bool = False, by_row: Tensor | None = None,
) -> None:  # fmt: skip
    """See `lord_fast.kernels.scatter_adam_`. Takes float32 tables of up to 1,024 columns.

    With `unique` or `by_row` this is one launch. Otherwise the rows are first sorted with a stable
    sort, so that the slots of a repeated row are adjacent and in batch order.
    """
    shape = _shape(weight, exp_avg, exp_avg_sq, last_step)
    if len(rows) == 0:
        return
    tile = 1
    if unique:
        rows = order = rows.contiguous()
    else:
        rows, order = torch.sort(rows, stable=True) if by_row is None else by_row.unbind()
        if len(rows) >= LONG * len(weight):
            shape, tile = shape | {"num_warps": 4}, max(4, 1024 // shape["BLOCK_D"])
    with torch.cuda.device_of(rows):
        scatter_adam_kernel[(len(rows),)](
            weight, exp_avg, exp_avg_sq, last_step, rows, order, grad.contiguous(), lr, step,
            len(rows), UNIQUE=unique, TILE=tile, **_constants(beta1, beta2, eps), **shape,
        )  # fmt: skip


def _constants(beta1: float, beta2: float, eps: float) -> dict[str, float]:
    # Dropping the last eighth of the terms leaves an error below 2^-27 of the first term. float32
    # resolves only 2^-24.
    terms = math.ceil(replay_terms(beta1, beta2) * 7 / 8)
    return {"BETA1": beta1, "BETA2": beta2, "EPS": eps, "TERMS": terms}


def _shape(*state: Tensor) -> dict[str, int]:
    dim, dtype = state[0].shape[1], state[0].dtype
    if dim > MAX_DIM or dtype != torch.float32:
        raise ValueError(
            f"the Triton kernels take float32 tables of up to {MAX_DIM} columns, not {dtype} of "
            f"{dim}; use --kernels reference"
        )
    assert all(tensor.is_contiguous() for tensor in state)
    block_d = max(128, triton.next_power_of_2(dim))
    return {"DIM": dim, "BLOCK_D": block_d, "num_warps": min(block_d // 128, 8)}
