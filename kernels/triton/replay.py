"""Replay of the zero-gradient steps that a row missed, with one division per element.

The mathematics is that of `reference.replay`. The j-th missed step of a row moves an element by
size_j * m / (root + eps * growth_j), where root = sqrt(v). size_j and growth_j depend only on the
row's last step and are computed in float64, at a few hundred operations per row. Elements are
float32.
"""

import math

import triton
import triton.language as tl

BLOCK_T = tl.constexpr(32)  # terms computed together


@triton.constexpr_function
def _log2(base):
    return math.log2(base) if base > 0 else -1100.0  # 2^-1100 underflows to 0, and its power 0 is 1


@triton.jit
def power(n, BASE: tl.constexpr):
    """BASE^n for integers n, float64, with 0^0 = 1."""
    LOG2: tl.constexpr = _log2(BASE)
    return tl.exp2(n.to(tl.float64) * LOG2)


@triton.jit
def _term(j, last_step, count, lr_ptr, BETA1: tl.constexpr, BETA2: tl.constexpr):
    """Size and growth of the j-th missed step, float64. The size is 0 where j > count."""
    lr = tl.load(lr_ptr + (last_step + j - 1), mask=j <= count, other=0.0).to(tl.float64)
    decay = power(j, BETA1)
    growth = tl.sqrt(power(-j, BETA2) - power(last_step, BETA2))
    return lr * decay * growth / (1 - power(last_step, BETA1) * decay), growth


@triton.jit
def one_division(
    last_step, count, lr_ptr,
    BETA1: tl.constexpr, BETA2: tl.constexpr, EPS: tl.constexpr, TERMS: tl.constexpr,
):  # fmt: skip
    """Approximate the sum of a row's terms by size / x * (1 + (spread / x)^2).

    Here x = root + floor. floor is the mean of e_j = eps * growth_j weighted by size_j, which makes
    the first-order term of the expansion vanish. spread is the weighted standard deviation of e_j
    and gives the second-order term. The relative error is at most the weighted mean of
    |e_j - floor|^3 / (root + e_1)^3. By Cauchy-Schwarz this is at most
    sqrt(variance * fourth moment) / (root + e_1)^3, which is below 2^-24, the resolution of
    float32, if root is at least `least`.

    Args:
        last_step: int64 scalar.
        count: Number of terms of the row, int64 scalar.
        lr_ptr: Learning rate of every step.
        BETA1: Decay of the first moment.
        BETA2: Decay of the second moment.
        EPS: Adam's epsilon.
        TERMS: Maximum number of terms of any row.

    Returns:
        The float32 scalars size, floor, spread and least.
    """
    size = tl.full((), 0.0, tl.float64)
    power1, power2, power3, power4 = size, size, size, size
    for start in range(0, TERMS, BLOCK_T):
        j = start + 1 + tl.arange(0, BLOCK_T)
        part, growth = _term(j, last_step, count, lr_ptr, BETA1, BETA2)
        size += tl.sum(part)
        power1 += tl.sum(part * growth)
        square = growth * growth
        power2 += tl.sum(part * square)
        power3 += tl.sum(part * square * growth)
        power4 += tl.sum(part * square * square)

    some = size > 0
    inverse = 1 / tl.where(some, size, 1.0)
    mean = tl.where(some, power1 * inverse, 1.0)
    variance = tl.maximum(power2 * inverse - mean * mean, 0.0)
    # The fourth central moment. The subtractions cancel digits, but float64 leaves enough of them.
    fourth = power4 - mean * (4 * power3 - mean * (6 * power2 - 3 * mean * power1))
    product = tl.maximum(variance * fourth * inverse, 1e-36).to(tl.float32)
    reach = tl.exp2((tl.log2(product) * 0.5 + 24) * (1 / 3))
    smallest = tl.sqrt(1 / BETA2 - power(last_step, BETA2))
    return (
        size.to(tl.float32),
        (EPS * mean).to(tl.float32),
        (EPS * tl.sqrt(variance)).to(tl.float32),
        (EPS * (reach - smallest)).to(tl.float32),
    )


@triton.jit
def replay(
    weight, exp_avg, exp_avg_sq, last_step, missed, lr_ptr,
    BETA1: tl.constexpr, BETA2: tl.constexpr, EPS: tl.constexpr, TERMS: tl.constexpr,
):  # fmt: skip
    """Apply the zero-gradient steps that a row missed.

    Args:
        weight: float32 [BLOCK_D].
        exp_avg: First moments, float32 [BLOCK_D].
        exp_avg_sq: Second moments, float32 [BLOCK_D].
        last_step: int64 scalar.
        missed: Number of missed steps, int64 scalar.
        lr_ptr: Learning rate of every step.
        BETA1: Decay of the first moment.
        BETA2: Decay of the second moment.
        EPS: Adam's epsilon.
        TERMS: Number of missed steps that can move a row, see `replay_terms`.

    Returns:
        The updated weight, exp_avg and exp_avg_sq.
    """
    if TERMS > 0:
        count = tl.minimum(missed, TERMS)
        size, floor, spread, least = one_division(
            last_step, count, lr_ptr, BETA1, BETA2, EPS, TERMS
        )
        root = tl.sqrt_rn(exp_avg_sq)
        inverse = tl.div_rn(1.0, root + floor)
        ratio = spread * inverse
        moved = size * (exp_avg * inverse) * (1 + ratio * ratio)

        # Tiny second moments occur early in training. The branch is taken for the whole row.
        beyond = (root < least) & (exp_avg != 0)
        if tl.max(beyond.to(tl.int32)) > 0:
            exact = tl.zeros_like(moved)
            for term in range(1, count.to(tl.int32) + 1):
                j = tl.full((), term, tl.int64)
                part, growth = _term(j, last_step, count, lr_ptr, BETA1, BETA2)
                floor_j = (EPS * growth).to(tl.float32)
                exact += part.to(tl.float32) * tl.div_rn(exp_avg, root + floor_j)
            moved = tl.where(beyond, exact, moved)
        weight -= moved
    decay1 = power(missed, BETA1).to(tl.float32)
    decay2 = power(missed, BETA2).to(tl.float32)
    return weight, exp_avg * decay1, exp_avg_sq * decay2
