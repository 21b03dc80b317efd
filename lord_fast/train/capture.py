"""A step as one CUDA graph: the host starts it once instead of launching hundreds of kernels."""

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3
"""Calls before the capture: what is made at the first ones (compiled code, cuDNN's choices of
algorithms, moments of the optimizer) must not be part of the graph."""

Update = Callable[..., dict[str, Tensor]]


class CudaGraph:
    """A function of tensors that is captured at its fourth call and replayed from then on.

    The function may change tensors of its own (tables, parameters, moments) and must not read any
    of them on the host. Its arguments are copied to fixed places before each replay.

    Args:
        update: Tensors of the same shapes at every call -> named scalars.
    """

    def __init__(self, update: Update):
        self.update, self.calls = update, 0
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: dict[str, Tensor] = {}
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        """What `update` returns, in tensors that no later call writes to."""
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
        """On a stream of its own, as the capture will be."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            outputs = self.update(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return outputs

    def _capture(self, inputs: tuple[Tensor, ...]) -> torch.cuda.CUDAGraph:
        """Record the function; nothing is computed. The loader's thread goes on meanwhile."""
        self.inputs = tuple(value.clone() for value in inputs)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self.outputs = self.update(*self.inputs)
        return graph
