"""The operators in plain PyTorch. They run on any device and are the oracle in tests.

Learning rates and bias corrections are float64, and the noise needs 64-bit integers. Apple's GPU
(mps) has no float64, so those parts are computed on the CPU there and their float32 results are
copied over. That path is tested with tensors that claim to be on another device and refuse float64.
It has not run on Apple hardware.
"""

import math

import torch
from torch import Tensor

from .ops import check_rows, replay_terms

_PHILOX_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_PHILOX_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_MASK32 = 0xFFFFFFFF
_WITHOUT_FLOAT64 = ("mps",)


def gather(
    weight: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, last_step: Tensor, rows: Tensor,
    lr: Tensor, step: Tensor, noise_ids: Tensor, std: float, seed: int,
    beta1: float, beta2: float, eps: float,
) -> Tensor:  # fmt: skip
    """See `lord_fast.kernels.gather`."""
    check_rows(weight, rows)
    state = (weight[rows], exp_avg[rows], exp_avg_sq[rows], last_step[rows])
    codes = replay(*state, lr, step, beta1, beta2, eps)[0]
    if std > 0:
        ids, now = _precise(noise_ids, step)
        drawn = noise(ids, codes.shape[1], now, seed).to(codes.dtype)
        codes = codes + std * drawn.to(codes.device)
    return codes


def scatter_adam_(
    weight: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, last_step: Tensor, rows: Tensor,
    grad: Tensor, lr: Tensor, step: Tensor, beta1: float, beta2: float, eps: float,
    unique: bool = False, by_row: Tensor | None = None,
) -> None:  # fmt: skip
    """See `lord_fast.kernels.scatter_adam_`. `unique` and `by_row` are ignored."""
    check_rows(weight, rows)
    rows, inverse = torch.unique(rows, return_inverse=True)
    summed = grad.new_zeros(len(rows), grad.shape[1]).index_add_(0, inverse, grad)
    state = (weight[rows], exp_avg[rows], exp_avg_sq[rows], last_step[rows])
    w, m, v = replay(*state, lr, step, beta1, beta2, eps)

    rates, now = _precise(lr, step)
    t = (now + 1).double()
    m = beta1 * m + (1 - beta1) * summed
    v = beta2 * v + (1 - beta2) * summed * summed
    scale = torch.sqrt(1 - beta2**t) / (1 - beta1**t) * rates[now].double()
    denominator = v.sqrt() + (eps * torch.sqrt(1 - beta2**t)).to(v.dtype).to(v.device)
    w = w - scale.to(w.dtype).to(w.device) * m / denominator

    weight[rows], exp_avg[rows], exp_avg_sq[rows] = w, m, v
    last_step[rows] = step + 1


def leaky_adain(
    x: Tensor, added: Tensor, bias: Tensor, scale: Tensor, slope: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """See `lord_fast.kernels.leaky_adain`. Returns the output, the means and 1 / deviations."""
    wide = torch.promote_types(x.dtype, torch.float32)
    y = torch.nn.functional.leaky_relu(x.to(wide) + added.to(wide)[:, None, None], slope)
    var, mean = torch.var_mean(y, dim=(2, 3), correction=0)
    rstd = torch.rsqrt(var + eps)
    weight, offset = ((t.to(wide))[:, :, None, None] for t in (scale * rstd, bias))
    out = (y - mean[:, :, None, None]) * weight + offset
    return out.to(x.dtype).contiguous(memory_format=torch.channels_last), mean, rstd


def leaky_adain_backward(
    grad: Tensor, x: Tensor, added: Tensor, scale: Tensor, mean: Tensor, rstd: Tensor, slope: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, of the added bias per image, of the bias and of the scale."""
    wide = mean.dtype
    grad, shifted = grad.to(wide), x.to(wide) + added.to(wide)[:, None, None]
    y = torch.nn.functional.leaky_relu(shifted, slope)
    normal = (y - mean[:, :, None, None]) * rstd[:, :, None, None]
    of_bias, of_scale = grad.sum((2, 3)), (grad * normal).sum((2, 3))
    pixels = x.shape[2] * x.shape[3]
    rest = grad - (of_bias[:, :, None, None] + normal * of_scale[:, :, None, None]) / pixels
    of_y = rest * (scale.to(wide) * rstd)[:, :, None, None]
    of_x = torch.where(shifted > 0, of_y, slope * of_y)
    out = of_x.to(x.dtype).contiguous(memory_format=torch.channels_last)
    return out, of_x.sum((2, 3)), of_bias, of_scale


def replay(
    weight: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, last_step: Tensor, lr: Tensor,
    step: Tensor, beta1: float, beta2: float, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Apply the zero-gradient steps of dense Adam that rows missed, up to `step`.

    For each t in last_step + 1 .. step it computes m *= beta1, v *= beta2 and
    w -= lr[t - 1] * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps).

    Args:
        weight: Gathered rows, [B, D].
        exp_avg: First moments, [B, D].
        exp_avg_sq: Second moments, [B, D].
        last_step: int64 [B].
        lr: [total_steps]. Update t uses `lr[t - 1]`.
        step: int64 scalar.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        eps: Adam's epsilon.

    Returns:
        weight, exp_avg, exp_avg_sq at `step`, each [B, D].
    """
    last_step, lr, step = _precise(last_step, lr, step)
    missed = step - last_step
    most = min(int(missed.max()) if len(missed) else 0, replay_terms(beta1, beta2))
    j = torch.arange(1, most + 1, device=missed.device)
    t = torch.minimum(last_step[:, None] + j, step).double()
    # In the j-th step the bias-corrected sqrt(v) is sqrt(exp_avg_sq) / grown. Numerator and
    # denominator are both multiplied by grown.
    grown = torch.sqrt((1 - beta2**t) / beta2 ** j.double())
    size = lr[t.long() - 1] * beta1 ** j.double() / (1 - beta1**t) * grown
    size = size.masked_fill(j > missed[:, None], 0).to(weight.dtype).to(weight.device)
    floor = (eps * grown).to(weight.dtype).to(weight.device)

    root = exp_avg_sq.sqrt()
    moved = torch.zeros_like(weight)
    for column in range(most):
        moved += size[:, column, None] * exp_avg / (root + floor[:, column, None])
    decay1, decay2 = (
        (beta ** missed.double()).to(weight.dtype).to(weight.device)[:, None]
        for beta in (beta1, beta2)
    )
    return weight - moved, exp_avg * decay1, exp_avg_sq * decay2


def _precise(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Move tensors on mps, which has no float64, to the CPU. Others stay on their device."""
    away = (tensor.device.type in _WITHOUT_FLOAT64 for tensor in tensors)
    return tuple(t.cpu() if moved else t for t, moved in zip(tensors, away, strict=True))


def noise(noise_ids: Tensor, dim: int, step: Tensor, seed: int) -> Tensor:
    """Standard Gaussians that depend only on (seed, noise id, element, step).

    Args:
        noise_ids: int64 [B].
        dim: Number of elements in each row.
        step: int64 scalar.
        seed: Key of the generator.

    Returns:
        float32 [B, dim].
    """
    blocks = torch.arange((dim + 3) // 4, device=noise_ids.device)
    ids = noise_ids[:, None].expand(-1, len(blocks))
    counter = (ids & _MASK32, ids >> 32, blocks.expand_as(ids), (step & _MASK32).expand_as(ids))
    a, b, c, d = philox4x32_10(counter, (seed & _MASK32, seed >> 32))
    return torch.stack((*box_muller(a, b), *box_muller(c, d)), dim=-1).flatten(1)[:, :dim]


def philox4x32_10(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32 with 10 rounds (Salmon et al., SC 2011, section 4.3).

    Args:
        counter: Four int64 tensors of one shape that hold 32-bit unsigned words.
        key: Two 32-bit unsigned words.

    Returns:
        Four int64 tensors of 32-bit unsigned words.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # The product wraps modulo 2^64, but both of its 32-bit halves are still correct.
        product0, product1 = c0 * _PHILOX_MULTIPLIERS[0], c2 * _PHILOX_MULTIPLIERS[1]
        high0, high1 = (product0 >> 32) & _MASK32, (product1 >> 32) & _MASK32
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, product1 & _MASK32, high0 ^ c3 ^ k1, product0 & _MASK32
        k0 = (k0 + _PHILOX_KEY_STEPS[0]) & _MASK32
        k1 = (k1 + _PHILOX_KEY_STEPS[1]) & _MASK32
    return c0, c1, c2, c3


def box_muller(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two standard Gaussians from two 32-bit words (Box & Muller, 1958).

    The radius uses the upper 23 bits of `a`, centred so that the argument of the logarithm is
    never 0 or 1. The angle uses the upper 24 bits of `b`. Both are exact in float32, so
    implementations differ only by the rounding of log, sqrt, sin and cos.

    Args:
        a: 32-bit unsigned words, int64.
        b: 32-bit unsigned words, int64, with the shape of `a`.

    Returns:
        Two float32 tensors with the shape of `a`.
    """
    uniform = ((a >> 9).to(torch.float32) + 0.5) * 2.0**-23
    radius = torch.sqrt(-2 * torch.log(uniform))
    angle = (b >> 8).to(torch.float64) * (2 * math.pi * 2.0**-24)
    return radius * torch.cos(angle).float(), radius * torch.sin(angle).float()
