"""Compares the bytes that Inductor's LeakyReLU and AdaIN move with the least possible.

    python bench/adain_bytes.py

The bytes are counted offline from the graph that Inductor schedules, for forward and backward, in
multiples of the size of the feature map. A kernel that keeps what it reads would move the least.
Its forward reads and writes the map. Its backward reads the gradient and the map and writes the
gradient of the map. Such a kernel must hold a map of 64 x 64 pixels with at least 16 channels, so
that memory is read in whole sectors. That is 256 KiB in float32, all registers of a multiprocessor.
Maps of up to 32 x 32 would fit, but they are only a quarter of the bytes. The step therefore uses
Inductor's kernel and lord-fast has none of its own for this.
"""

import logging

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._inductor import metrics
from torch._inductor.compile_fx import inductor_metrics_log

from lord_fast.model.generator import adain

SHAPE, SLOPE, LEAST = (8, 256, 64, 64), 0.01, (2, 3)


def function(x: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
    """The operations between two convolutions of the generator."""
    return adain(F.leaky_relu(x, SLOPE), bias, scale)


def count(dtype: torch.dtype) -> tuple[float, float]:
    """The bytes that forward and backward move, in multiples of the size of the feature map."""
    x = torch.randn(SHAPE, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    codes = [torch.randn(*SHAPE[:2], 1, 1, dtype=dtype, requires_grad=True) for _ in range(2)]
    metrics.reset()
    out = torch.compile(function, fullgraph=True)(x, *codes)
    forward = metrics.num_bytes_accessed / x.nbytes
    metrics.reset()
    out.backward(torch.ones_like(out))
    return forward, metrics.num_bytes_accessed / x.nbytes


def main() -> None:
    """Print the bytes for bfloat16 and float32."""
    # Inductor counts bytes only if this log is enabled.
    inductor_metrics_log.setLevel(logging.INFO)
    with torch._inductor.config.patch(force_disable_caches=True):
        for dtype in (torch.bfloat16, torch.float32):
            forward, backward = count(dtype)
            print(f"{dtype}: forward {forward:.2f} (least {LEAST[0]}), backward {backward:.2f} "
                  f"(least {LEAST[1]})")  # fmt: skip


if __name__ == "__main__":
    main()
