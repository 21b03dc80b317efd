"""Captures a training step as one CUDA graph, which replaces hundreds of kernel launches by one."""

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

WARM_UP = 3
"""Number of calls before the capture. The first calls compile code, select cuDNN algorithms and
allocate the optimizer's moments, which must not become part of the graph."""
COMPARED = 2
"""Number of replays that are compared with the eager step. The second one shows what a graph has
frozen, such as a learning rate."""
TOLERANCE = 0.05
"""Largest difference of a replay, relative to what the eager step changed. Some CUDA kernels sum in
an order that varies, and Adam's first steps enlarge that."""

Update = Callable[..., dict[str, Tensor]]
Changed = list[tuple[Tensor, Tensor | None]]
"""Tensors that a step changes, each with the rows that change or None for all of them."""


class CudaGraph:
    """A function of tensors that is captured at its fourth call and replayed from then on.

    The function may modify its own tensors (tables, parameters, moments) but must not read any of
    them on the host. Its arguments are copied into static buffers before each replay. The first
    replays are compared with the function itself, from the same state. If they differ, or if the
    function cannot be captured, it is called without a graph from then on, and a warning says so.

    Args:
        update: The function. It takes tensors of the same shapes at every call and returns named
            scalars.
        changed: Names the tensors that `update` changes with given arguments, in groups.
        required: Raise an error instead of the warning.

    Raises:
        ValueError: The graph is required and cannot be used.
    """

    def __init__(
        self, update: Update, changed: Callable[..., dict[str, Changed]], required: bool = False
    ):
        self.update, self.changed, self.required = update, changed, required
        self.calls = 0
        self.refused = ""
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: dict[str, Tensor] = {}
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Return the results of `update` in tensors that later calls do not overwrite."""
        self.calls += 1
        if self.calls == WARM_UP + 1:
            self._try_capture(inputs)
        if self.graph is None:
            return self._eager(inputs)
        if self.calls <= WARM_UP + COMPARED:
            return self._compared(inputs)
        return self._replay(inputs)

    def _eager(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Call the function on a side stream, because the capture uses a side stream too."""
        if self.refused:
            return self.update(*inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            outputs = self.update(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return outputs

    def _try_capture(self, inputs: tuple[Tensor, ...]) -> None:
        try:
            self.graph = self._capture(inputs)
        except RuntimeError as error:
            self._refuse(f"the step cannot be captured ({error})")

    def _capture(self, inputs: tuple[Tensor, ...]) -> torch.cuda.CUDAGraph:
        """Record the function without computing anything. The loader's thread keeps running."""
        self.inputs = tuple(value.clone() for value in inputs)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self.outputs = self.update(*self.inputs)
        return graph

    def _replay(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        for place, value in zip(self.inputs, inputs, strict=True):
            place.copy_(value)
        assert self.graph is not None
        self.graph.replay()
        return {name: value.clone() for name, value in self.outputs.items()}

    def _compared(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Do the step eagerly, put the state back, replay it and compare. The host waits."""
        groups = self.changed(*inputs)
        before = _copies(groups)
        wanted = self._eager(inputs)
        after = _copies(groups)
        _put(groups, before)
        got = self._replay(inputs)
        off = _differences(_copies(groups), before, after)
        off |= {name: _relative(got[name], wanted[name], 0 * wanted[name]) for name in wanted}
        worst = max(off, key=lambda name: off[name])
        if off[worst] <= TOLERANCE:
            return got
        _put(groups, after)
        self._refuse(f"a replay differs from the eager step in {worst} by {off[worst]:.2g}")
        return wanted

    def _refuse(self, why: str) -> None:
        """Go on without a graph.

        Raises:
            ValueError: The graph is required.
        """
        why = " ".join(why.split())
        if self.required:
            raise ValueError(f"--cuda-graph on: {why}; use --cuda-graph off")
        warnings.warn(f"training goes on without a CUDA graph, because {why}", stacklevel=2)
        self.refused, self.graph, self.outputs = why, None, {}


@torch.no_grad()
def _copies(groups: Mapping[str, Changed]) -> dict[str, list[Tensor]]:
    return {
        name: [tensor.clone() if rows is None else tensor[rows] for tensor, rows in group]
        for name, group in groups.items()
    }


@torch.no_grad()
def _put(groups: Mapping[str, Changed], copies: Mapping[str, list[Tensor]]) -> None:
    for name, group in groups.items():
        for (tensor, rows), copy in zip(group, copies[name], strict=True):
            if rows is None:
                tensor.copy_(copy)
            else:
                tensor[rows] = copy


def _differences(
    got: Mapping[str, list[Tensor]],
    before: Mapping[str, list[Tensor]],
    after: Mapping[str, list[Tensor]],
) -> dict[str, float]:
    """Return the difference of each group, relative to how far the group moved."""
    flat = [
        {name: torch.cat([t.double().flatten() for t in group]) for name, group in state.items()}
        for state in (got, after, before)
    ]
    return {name: _relative(*(state[name] for state in flat)) for name in got}


def _relative(got: Tensor, wanted: Tensor, base: Tensor) -> float:
    """Return |got - wanted| / |wanted - base|. It is infinite if a value is not finite."""
    off, moved = float((got - wanted).norm()), float((wanted - base).norm())
    if off == 0:
        return 0.0
    return off / moved if off < float("inf") and moved > 0 else float("inf")
