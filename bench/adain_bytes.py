"""Bytes that LeakyReLU and AdaIN move, as Inductor fuses them, beside the least possible.

    python bench/adain_bytes.py

Counted offline from the graph that Inductor schedules, in sizes of the feature map, forward and
backward. The least: a kernel that holds what it reads (forward: the map in and out; backward: the
gradient and the map in, the map's gradient out). It would have to hold a map of 64 x 64 pixels and
at least 16 channels, so that memory is read in whole sectors: 256 KiB in float32, all registers of
a multiprocessor. The maps that fit, of up to 32 x 32, are a quarter of the bytes. So the step keeps
what Inductor fuses, and has no kernel of its own for this.
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
    """What stands between two convolutions of the generator."""
    return adain(F.leaky_relu(x, SLOPE), bias, scale)


def count(dtype: torch.dtype) -> tuple[float, float]:
    """Sizes of the feature map that are read or written, forward and backward."""
    x = torch.randn(SHAPE, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    codes = [torch.randn(*SHAPE[:2], 1, 1, dtype=dtype, requires_grad=True) for _ in range(2)]
    metrics.reset()
    out = torch.compile(function, fullgraph=True)(x, *codes)
    forward = metrics.num_bytes_accessed / x.nbytes
    metrics.reset()
    out.backward(torch.ones_like(out))
    return forward, metrics.num_bytes_accessed / x.nbytes


def main() -> None:
    """Print both types."""
    # Inductor counts where it would log.
    inductor_metrics_log.setLevel(logging.INFO)
    with torch._inductor.config.patch(force_disable_caches=True):
        for dtype in (torch.bfloat16, torch.float32):
            forward, backward = count(dtype)
            print(f"{dtype}: forward {forward:.2f} (least {LEAST[0]}), backward {backward:.2f} "
                  f"(least {LEAST[1]})")  # fmt: skip


if __name__ == "__main__":
    main()
