"""Replay of the zero-gradient steps that a row missed, with one division per element.

The mathematics is that of `reference.replay`. The j-th missed step of a row moves an element by
size_j * m / (root + eps * growth_j), where root = sqrt(v). size_j and growth_j depend only on the
row's last step. Each lane computes one j. All arithmetic is float32 except for the exponent of a
power, whose product needs more bits. Differences that would cancel are computed as expm1.
"""

import math

import triton
import triton.language as tl

BLOCK_T = tl.constexpr(32)  # terms computed together


@triton.constexpr_function
def _log2(base):
    return math.log2(base) if base > 0 else -1100.0  # 2^-1100 underflows to 0, and its power 0 is 1


@triton.constexpr_function
def _upper(value):
    """The upper 12 bits of a number's mantissa. Its product with 12 bits is exact in float32."""
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(mantissa * 4096) / 4096, exponent)


@triton.jit
def _parts(n, BASE: tl.constexpr, SMALL: tl.constexpr):
    """BASE^n for integers n as scale * (1 + p), float32, with scale a power of two.

    p is a Taylor polynomial of 2^f - 1 for |f| <= 1/2, with a relative error below 2e-8. With
    `SMALL`, |n| must be below 4096, and no float64 is needed.
    """
    LOG2: tl.constexpr = _log2(BASE)
    if SMALL:
        UPPER: tl.constexpr = _upper(LOG2)
        LOWER: tl.constexpr = LOG2 - UPPER
        y = n.to(tl.float32) * UPPER
        k = tl.floor(y + 0.5)
        f = (y - k) + n.to(tl.float32) * LOWER
    else:
        y = n.to(tl.float64) * LOG2
        whole = tl.floor(y + 0.5)
        f = (y - whole).to(tl.float32)
        k = whole.to(tl.float32)
    scale = ((tl.maximum(k, -126.0).to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)
    p = 1.5252733804059841e-05 * f + 0.00015403530393381610
    p = p * f + 0.0013333558146428443
    p = p * f + 0.009618129107628477
    p = p * f + 0.05550410866482158
    p = p * f + 0.2402265069591007
    p = p * f + 0.6931471805599453
    return tl.where(k < -126, 0.0, scale), p * f


@triton.jit
def power(n, BASE: tl.constexpr, SMALL: tl.constexpr = False):
    """BASE^n for integers n, float32, with 0^0 = 1. `SMALL` promises that |n| is below 4096."""
    scale, p = _parts(n, BASE, SMALL)
    return scale + scale * p


@triton.jit
def one_minus_power(n, BASE: tl.constexpr):
    """1 - BASE^n for integers n, float32, with a small relative error also near n = 0."""
    scale, p = _parts(n, BASE, False)
    return (1 - scale) - scale * p


@triton.jit
def _growth(j, last_step, BETA2: tl.constexpr):
    """sqrt(BETA2^-j - BETA2^last_step), float32."""
    return tl.sqrt(power(-j, BETA2, True) * one_minus_power(last_step + j, BETA2))


@triton.jit
def _term(j, last_step, count, lr_ptr, BETA1: tl.constexpr, BETA2: tl.constexpr):
    """Size and growth of the j-th missed step, float32. The size is 0 where j > count."""
    lr = tl.load(lr_ptr + (last_step + j - 1), mask=j <= count, other=0.0)
    growth = _growth(j, last_step, BETA2)
    return lr * power(j, BETA1, True) * growth / one_minus_power(last_step + j, BETA1), growth


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
    # Moments are taken about the smallest growth, so that few digits cancel.
    smallest = _growth(tl.full((), 1, tl.int64), last_step, BETA2)
    size = tl.full((), 0.0, tl.float32)
    power1, power2, power3, power4 = size, size, size, size
    for start in range(0, TERMS, BLOCK_T):
        j = start + 1 + tl.arange(0, BLOCK_T)
        part, growth = _term(j, last_step, count, lr_ptr, BETA1, BETA2)
        more = growth - smallest
        first = part * more
        second = first * more
        size += tl.sum(part)
        power1 += tl.sum(first)
        power2 += tl.sum(second)
        power3 += tl.sum(second * more)
        power4 += tl.sum(second * more * more)

    some = size > 0
    inverse = 1 / tl.where(some, size, 1.0)
    mean = power1 * inverse
    variance = tl.maximum(power2 * inverse - mean * mean, 0.0)
    fourth = (power4 - mean * (4 * power3 - mean * (6 * power2 - 3 * mean * power1))) * inverse
    product = tl.maximum(variance * fourth, 1e-36)
    reach = tl.exp2((tl.log2(product) * 0.5 + 24) * (1 / 3))
    floor = tl.where(some, smallest + mean, 1.0)
    return size, EPS * floor, EPS * tl.sqrt(variance), EPS * (reach - smallest)


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
                exact += part * tl.div_rn(exp_avg, root + EPS * growth)
            moved = tl.where(beyond, exact, moved)
        weight -= moved
    return weight, exp_avg * power(missed, BETA1), exp_avg_sq * power(missed, BETA2)
