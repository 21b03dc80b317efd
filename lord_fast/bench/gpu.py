"""Times work on a GPU as the GPU sees it.

A host clock between two synchronisations measures Python and the launches, which a training step
hides behind the work of the GPU. Events are recorded on the GPU itself. Kernels are replayed from a
CUDA graph, so no launch lies between them. The L2 cache is overwritten before each call, because
the rows of a batch are not in it when a step needs them. Steps follow each other without waiting.
"""

import warnings
from collections.abc import Callable
from typing import Any, Protocol

import torch

REPEATS = 20
"""Calls in a graph, whose mean is one time."""

Work = Callable[[], object]


class Gpu(Protocol):
    """What timing needs of a GPU. The tests use a stand-in with a clock of its own."""

    def record(self) -> Any:
        """Put an event behind all work that was launched so far."""

    def seconds(self, start: Any, end: Any) -> float:
        """Wait for both events and return the time between them."""

    def flush(self) -> None:
        """Overwrite the L2 cache."""

    def capture(self, work: Work) -> Work:
        """Return a replay of work that is captured, or raise RuntimeError if it cannot be."""


class Cuda:
    """The current CUDA device."""

    def __init__(self, device: torch.device):
        size = 2 * torch.cuda.get_device_properties(device).L2_cache_size
        self.device, self.cover = device, torch.empty(size, dtype=torch.uint8, device=device)

    def record(self) -> torch.cuda.Event:
        """See `Gpu`."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        """See `Gpu`."""
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    def flush(self) -> None:
        """See `Gpu`."""
        self.cover.zero_()

    def capture(self, work: Work) -> Work:
        """See `Gpu`. The work is done once before, on another stream, to compile and allocate."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph.replay


def cold(gpu: Gpu, work: Work, name: str, repeats: int = REPEATS) -> float:
    """Return the seconds of one call whose data is not in the L2 cache.

    A graph of flushes and calls is timed, and a graph of the flushes alone is subtracted. Work that
    cannot be captured is launched one call at a time. Its time includes gaps between its kernels,
    which a warning says.

    Args:
        gpu: The GPU.
        work: The work of one call.
        name: Name for the warning.
        repeats: Calls in the graph.
    """

    def flushed() -> None:
        for _ in range(repeats):
            gpu.flush()
            work()

    def flushes() -> None:
        for _ in range(repeats):
            gpu.flush()

    try:
        both = gpu.capture(flushed)
    except RuntimeError as error:
        why = " ".join(str(error).split())[:120]
        warnings.warn(f"{name} is timed with its launches, because {why}", stacklevel=2)
        return sum(_launched(gpu, work) for _ in range(repeats)) / repeats
    return (span(gpu, both) - span(gpu, gpu.capture(flushes))) / repeats


def _launched(gpu: Gpu, work: Work) -> float:
    gpu.flush()
    return span(gpu, work)


def pipelined(gpu: Gpu, works: list[Work]) -> float:
    """Return the mean seconds of calls that follow each other without waiting for the GPU.

    The first call only fills the pipeline.
    """
    works[0]()
    return span(gpu, lambda: [work() for work in works[1:]]) / (len(works) - 1)


def span(gpu: Gpu, work: Work) -> float:
    """Return the seconds between events before and after work."""
    start = gpu.record()
    work()
    return gpu.seconds(start, gpu.record())
