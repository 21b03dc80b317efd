"""Captures a training step as one CUDA graph, which replaces hundreds of kernel launches by one."""

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3
"""Number of calls before the capture. The first calls compile code, select cuDNN algorithms and
allocate the optimizer's moments, which must not become part of the graph."""

Update = Callable[..., dict[str, Tensor]]


class CudaGraph:
    """A function of tensors that is captured at its fourth call and replayed from then on.

    The function may modify its own tensors (tables, parameters, moments) but must not read any of
    them on the host. Its arguments are copied into static buffers before each replay.

    Args:
        update: The function. It takes tensors of the same shapes at every call and returns named
            scalars.
    """

    def __init__(self, update: Update):
        self.update, self.calls = update, 0
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: dict[str, Tensor] = {}
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Return the results of `update` in tensors that later calls do not overwrite."""
        self.calls += 1
        if self.calls <= WARM_UP:
            return self._warm_up(inputs)
        if self.graph is None:
            self.graph = self._capture(inputs)
        for place, value in zip(self.inputs, inputs, strict=True):
            place.copy_(value)
        self.graph.replay()
        return {name: value.clone() for name, value in self.outputs.items()}

    def _warm_up(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Call the function on a side stream, because the capture uses a side stream too."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            outputs = self.update(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return outputs

    def _capture(self, inputs: tuple[Tensor, ...]) -> torch.cuda.CUDAGraph:
        """Record the function without computing anything. The loader's thread keeps running."""
        self.inputs = tuple(value.clone() for value in inputs)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self.outputs = self.update(*self.inputs)
        return graph
