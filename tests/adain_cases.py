"""Cases of LeakyReLU and AdaIN in C++, for the library and for a program of its own."""

import torch

from lord_fast.kernels import reference

SLOPE, EPS = 0.1, 1e-5


def some(shape, dtype, seed=0):
    """A map, its gradient, the added bias, the bias and the scale. The map has a large mean."""
    rng = torch.Generator().manual_seed(seed)
    images, channels = shape[:2]

    def values(*size):
        return torch.randn(*size, generator=rng)

    x, grad = (
        (values(*shape) + shift).to(dtype).contiguous(memory_format=torch.channels_last)
        for shift in (20.0, 0.0)
    )
    return x, grad, values(channels) - 20, values(images, channels), values(images, channels)


def assert_equals_float64(adain, shape, dtype):
    """Compare with the reference in float64.

    Args:
        adain: Called with `some`, the slope and epsilon. Returns the three results of leaky_adain
            and the four gradients.
        shape: [B, C, H, W].
        dtype: Of the maps.
    """
    x, grad, added, bias, scale = some(shape, dtype)
    wide = [tensor.double() for tensor in (x, added, bias, scale)]
    wanted = reference.leaky_adain(*wide, SLOPE, EPS)
    of_wanted = reference.leaky_adain_backward(
        grad.double(), *wide[:2], wide[3], *wanted[1:], SLOPE
    )
    found = adain(x, grad, added, bias, scale, SLOPE, EPS)
    for number, (ours, exact) in enumerate(zip(found, (*wanted, *of_wanted), strict=True)):
        is_map = number in (0, 3)
        assert ours.dtype == (dtype if is_map else torch.float32)
        # A bfloat16 has 8 digits, so that rounding moves it by at most 2^-9 of its size.
        rtol = 2**-8 if is_map and dtype == torch.bfloat16 else 1e-4
        torch.testing.assert_close(ours.double(), exact, rtol=rtol, atol=2e-4)
