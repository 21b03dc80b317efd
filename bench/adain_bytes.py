"""Compares the bytes that Inductor's LeakyReLU and AdaIN move with the least possible.

    python bench/adain_bytes.py

The bytes are counted offline from the graph that Inductor schedules, for forward and backward, in
multiples of the size of the feature map. A kernel that keeps what it reads moves the least. Its
forward reads and writes the map. Its backward reads the gradient and the map and writes the
gradient of the map. `lord_fast.kernels.leaky_adain` is such a kernel for bf16 maps of up to 64 x 64
pixels, of which a multiprocessor's registers hold 8 channels at a time forward and 4 backward. It
also adds the bias of the convolution before it, which costs others two more passes forward and one
backward. tests/gate counts its accesses in the compiled code. Larger maps and float32 use
Inductor's kernel on CUDA.
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
