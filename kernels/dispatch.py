"""Which implementation runs on which device, and why.

PyTorch's dispatcher is the registry: the reference stands for every device, and `use` puts native
code over it on the CPU and Triton over it on CUDA. A call never chooses.
"""

import importlib.metadata
import importlib.util
import subprocess
import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch

from . import native, reference

Choice = Literal["auto", "reference", "native", "triton"]

_OPERATORS = ("gather", "scatter_adam_")
_DEVICES = {"native": "cpu", "triton": "cuda"}
_reference = torch.library.Library("lord_fast", "IMPL", "CompositeExplicitAutograd")
for _name in _OPERATORS:
    _reference.impl(_name, getattr(reference, _name))


class Live(NamedTuple):
    """What runs on a device.

    Attributes:
        name: reference, native or triton.
        why: Its version, or why it is not a faster one.
    """

    name: str
    why: str

    def __str__(self):
        return f"{self.name} ({self.why})"


_overrides: dict[str, torch.library.Library] = {}
_live: dict[str, Live] = {}
_told: set[str] = set()


def use(choice: Choice, device: str | None = None) -> None:
    """Choose the implementation that runs from now on.

    Args:
        choice: auto: on every device the fastest one that is there; reference: plain PyTorch
            everywhere; native or triton: that one on its device, plain PyTorch elsewhere.
        device: Type of the device that the tables will live on (cpu, cuda or mps), if it is
            known.

    Raises:
        ValueError: an implementation asked for by name is not there, or not for `device`.
    """
    if choice not in get_args(Choice):
        raise ValueError(f"--kernels {choice}: choose from {', '.join(get_args(Choice))}")
    if choice in _DEVICES and device not in (None, _DEVICES[choice]):
        raise ValueError(
            f"--kernels {choice}: these kernels are for {_DEVICES[choice]} and the tables are on "
            f"{device}; leave it at auto"
        )
    missing = {name: _missing(name) for name in _DEVICES if choice in ("auto", name)}
    if choice == "triton" and not torch.cuda.is_available():
        missing[choice] = missing[choice] or "this PyTorch sees no GPU; see lord-fast doctor"
    if choice in _DEVICES and missing[choice]:
        raise ValueError(f"--kernels {choice}: {missing[choice]}")
    for name, where in _DEVICES.items():
        _overrides.pop(where, None)
        if name not in missing:
            _live[where] = Live("reference", f"--kernels {choice}")
        elif missing[name]:
            _live[where] = Live("reference", f"no {name} kernels: {missing[name]}")
        else:
            _override(name, where)
    if missing.get("native") and "native" not in _told:
        _told.add("native")
        warnings.warn(
            f"the slow reference kernels run on the CPU: {missing['native']}",
            RuntimeWarning,
            stacklevel=2,
        )


def live(device: str) -> Live:
    """What runs on a type of device: cpu, cuda or mps."""
    return _live.get(device, Live("reference", "there is no other for this device"))


def _missing(name: str) -> str:
    """What an implementation lacks and how to get it; empty if it can run."""
    if name == "native":
        try:
            native.load()
        except ValueError as error:
            return str(error)
    elif importlib.util.find_spec("triton") is None:
        return "Triton is not installed; pip install 'lord-fast[triton]'"
    return ""


def _override(name: str, device: str) -> None:
    library = torch.library.Library("lord_fast", "IMPL", device.upper())
    for operator in _OPERATORS:
        function = getattr(native, operator) if name == "native" else _triton(operator)
        library.impl(operator, function)
    _overrides[device] = library
    _live[device] = Live(name, native.instructions() if name == "native" else _triton_version())


def _triton(operator: str) -> Callable:
    """Triton takes a second to import: only a launch needs it."""

    def launch(*arguments):
        from . import triton

        try:
            return getattr(triton, operator)(*arguments)
        except subprocess.CalledProcessError as error:  # of the C compiler: there is no Python.h
            raise _cannot_launch(error) from error
        except RuntimeError as error:
            if "C compiler" not in str(error):
                raise
            raise _cannot_launch(error) from error

    return launch


def _cannot_launch(error: Exception) -> ValueError:
    return ValueError(
        f"Triton cannot build the C code that launches its kernels ({error}); install a C compiler "
        f"and Python's headers (on Debian and Ubuntu: apt install gcc python3-dev), or take "
        f"--kernels reference"
    )


def _triton_version() -> str:
    """The version, if it is known: the distribution can have another name than the module."""
    try:
        return f"Triton {importlib.metadata.version('triton')}"
    except importlib.metadata.PackageNotFoundError:
        return "Triton of an unknown version"
