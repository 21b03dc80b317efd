"""Gaussian noise that depends only on (seed, noise id, element, step), as in `reference.noise`.

Logarithm, sine and cosine are polynomials. The library's sine would keep a table in local memory,
and the hardware's approximations differ from the reference by more than 1e-6.
"""

import triton
import triton.language as tl


@triton.jit
def gaussians(noise_id, step, seed, BLOCK_D: tl.constexpr):
    """Standard Gaussians, float32 [BLOCK_D].

    Args:
        noise_id: int64 scalar.
        step: int64 scalar.
        seed: Integer scalar below 2^63.
        BLOCK_D: Number of elements, a multiple of 4.
    """
    a, b, c, d = words(noise_id, tl.arange(0, BLOCK_D // 4), step, seed)
    cosine0, sine0 = box_muller(a, b)
    cosine1, sine1 = box_muller(c, d)
    # This order puts the four values of a block side by side, so the store is a vector store.
    four = tl.join(tl.join(cosine0, cosine1), tl.join(sine0, sine1))
    return tl.reshape(four, (BLOCK_D,))


@triton.jit
def words(noise_id, block, step, seed):
    """Four uint32 words of Philox4x32-10 per block, with counter (id, block, step), key `seed`."""
    low, high = noise_id.to(tl.uint32), (noise_id >> 32).to(tl.uint32)
    return tl.philox(seed, low, high, block.to(tl.uint32), step.to(tl.uint32))


@triton.jit
def box_muller(a, b):
    """Two Gaussians from two uint32 words, with the bits that `reference.box_muller` uses."""
    odd = ((a >> 9) * 2 + 1).to(tl.int32)  # the uniform is odd * 2^-24
    radius = tl.sqrt_rn(-2 * _log(odd.to(tl.float32) * 5.9604644775390625e-08))
    cosine, sine = _turn((b >> 8).to(tl.int32))
    return radius * cosine, radius * sine


@triton.jit
def _log(x):
    """Natural logarithm of normal floats in (0, 1), within 0.9 units in the last place."""
    bits = x.to(tl.int32, bitcast=True)
    exponent = (bits - 0x3F3504F3) >> 23  # leaves a mantissa in [1 / sqrt(2), sqrt(2))
    f = (bits - (exponent << 23)).to(tl.float32, bitcast=True) - 1
    e = exponent.to(tl.float32)
    z = f * f
    p = 0.06746357042966895 * f - 0.11756352903426275
    p = p * f + 0.11934231688229953
    p = p * f - 0.12393886696666359
    p = p * f + 0.14210885955623245
    p = p * f - 0.16668441574418327
    p = p * f + 0.20002635798744647
    p = p * f - 0.25000006836693817
    p = p * f + 0.3333330312549863
    # ln 2 is split into two parts so that e times the larger part is exact.
    tail = f * (z * p) + e * -2.12194440e-4 - 0.5 * z
    return (f + tail) + e * 0.693359375


@triton.jit
def _turn(k):
    """Cosine and sine of k * 2^-24 turns, 0 <= k < 2^24, within 2^-23."""
    quarter = (k + (1 << 21)) >> 22
    y = (k - (quarter << 22)).to(tl.float32) * 2.384185791015625e-07  # quarter turns, exact
    z = y * y
    # pi / 2 is split into two parts because its float32 rounding error would be visible.
    s = (-0.004602163104758229 * z + 0.07968022285810601) * z - 0.6459634781534175
    s = 1.57079637050628662109375 * y + (s * z - 4.8546e-08) * y
    c = (0.0009067416464159691 * z - 0.02086152899322654) * z + 0.25366941041715557
    c = (c * z - 1.2337005493749846) * z + 1
    odd = (quarter & 1) != 0
    cosine, sine = tl.where(odd, s, c), tl.where(odd, c, s)
    cosine = tl.where(((quarter + 1) & 2) != 0, -cosine, cosine)
    return cosine, tl.where((quarter & 2) != 0, -sine, sine)
