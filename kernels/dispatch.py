"""Selects the implementation that runs on each device.

PyTorch's dispatcher is the registry. The reference is registered for every device, and `use`
overrides it with native code on the CPU and with Triton on CUDA. No choice is made at call time.
"""

import importlib.metadata
import importlib.util
import subprocess
import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch

from . import native, reference
from .ops import Adam, Table, gather, scatter_adam_

Choice = Literal["auto", "reference", "native", "triton"]

_OPERATORS = ("gather", "scatter_adam_", "leaky_adain", "leaky_adain_backward")
_DEVICES = {"native": "cpu", "triton": "cuda"}
_reference = torch.library.Library("lord_fast", "IMPL", "CompositeExplicitAutograd")
for _name in _OPERATORS:
    _reference.impl(_name, getattr(reference, _name))


class Live(NamedTuple):
    """The implementation that runs on a device.

    Attributes:
        name: reference, native or triton.
        why: The version or instruction set in use, or the reason that nothing faster runs.
    """

    name: str
    why: str

    def __str__(self):
        return f"{self.name} ({self.why})"


_overrides: dict[str, torch.library.Library] = {}
_live: dict[str, Live] = {}
_told: set[str] = set()


def use(choice: Choice, device: str | None = None) -> None:
    """Select the implementation that all later calls use.

    Args:
        choice: `auto` selects the fastest implementation available on each device. `reference`
            selects plain PyTorch everywhere. `native` and `triton` select that implementation on
            its own device and plain PyTorch elsewhere.
        device: Type of the device that will hold the tables (cpu, cuda or mps), if it is known.

    Raises:
        ValueError: The named implementation is not available or does not run on `device`.
    """
    if choice not in get_args(Choice):
        raise ValueError(f"--kernels {choice}: choose from {', '.join(get_args(Choice))}")
    if choice in _DEVICES and device not in (None, _DEVICES[choice]):
        raise ValueError(
            f"--kernels {choice}: these kernels run on {_DEVICES[choice]} only and the tables are "
            f"on {device}; use --kernels auto"
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
    _warn_once("native", "the CPU", missing)
    if device == "cuda":
        _warn_once("triton", "CUDA", missing)


def probe(device: str) -> None:
    """Launch both operators once on a small table, if Triton runs on this device type.

    Triton builds C code at its first launch. Without a compiler that would fail at the first step.

    Raises:
        ValueError: The launch fails. The error says what to install.
    """
    if device == "cuda" and live(device).name == "triton":
        weight, exp_avg, exp_avg_sq = torch.zeros(3, 2, 4, device=device)
        state = Table(weight, exp_avg, exp_avg_sq, _integers(0, 0))
        lr, step = torch.ones(2, device=device), _integers(0)[0]
        codes = gather(state, _integers(0, 1), lr, step, adam=Adam(), std=1.0)
        scatter_adam_(state, _integers(1, 1), codes, lr, step, adam=Adam())


def _integers(*values: int) -> torch.Tensor:
    return torch.tensor(values, device="cuda")


def live(device: str) -> Live:
    """The implementation that runs on a device type (cpu, cuda or mps)."""
    return _live.get(device, Live("reference", "the only implementation for this device"))


def _missing(name: str) -> str:
    """What an implementation needs and how to install it, or "" if it can run."""
    if name == "native":
        try:
            native.load()
        except ValueError as error:
            return str(error)
    elif importlib.util.find_spec("triton") is None:
        return "Triton is not installed; pip install 'lord-fast[triton]'"
    return ""


def _warn_once(name: str, where: str, missing: dict[str, str]) -> None:
    if missing.get(name) and name not in _told:
        _told.add(name)
        warnings.warn(
            f"using the slow reference kernels on {where}: {missing[name]}",
            RuntimeWarning,
            stacklevel=3,
        )


def _override(name: str, device: str) -> None:
    library = torch.library.Library("lord_fast", "IMPL", device.upper())
    for operator in _OPERATORS:
        function = getattr(native, operator) if name == "native" else _triton(operator)
        library.impl(operator, function)
    _overrides[device] = library
    _live[device] = Live(name, native.instructions() if name == "native" else _triton_version())


def _triton(operator: str) -> Callable:
    """Defer the import of Triton, which takes a second, to the first launch."""

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
    """Return Triton's version if it is known. Its distribution can have another name."""
    try:
        return f"Triton {importlib.metadata.version('triton')}"
    except importlib.metadata.PackageNotFoundError:
        return "Triton of an unknown version"
