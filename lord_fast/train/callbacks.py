"""Functions that the caller of a training is called back with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor


def _nothing(*_: object) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Callbacks:
    """Functions of the caller. An exception in one of them ends the training.

    Attributes:
        on_step: Called after every step with the number of completed steps and the step's scalars
            on the device, such as `loss`. Reading one waits for the device.
        on_save: Called with the number of completed steps and the folder of a checkpoint that is
            completely written. The call may come from the thread that wrote it.
    """

    on_step: Callable[[int, dict[str, Tensor]], object] = _nothing
    on_save: Callable[[int, Path], object] = _nothing


NONE = Callbacks()
"""Callbacks that do nothing."""
