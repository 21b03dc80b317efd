"""macOS and Windows, as far as Linux can prove them.

What only Linux has is taken away, and tensors claim to be on an Apple GPU. Tested for real is
Linux alone.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from latent_cases import clone, some_rows, table
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from lord_fast import kernels, machine
from lord_fast.kernels import Adam, reference
from lord_fast.memory import free_memory
from lord_fast.model.schedule import cosine
from lord_fast.system import package_version

ROOT = Path(__file__).parents[1]
ADAM = Adam()
ELSEWHERE = """
import builtins, ctypes, io, os, sys, warnings
import filelock, matplotlib.figure, psutil, safetensors.torch, sklearn, torch, torch._dynamo, tyro
import rich.console, rich.progress, rich.table
from types import SimpleNamespace

system, folder = sys.argv[1:]
sys.platform = system
for name in ("sched_getaffinity", "posix_fadvise", "POSIX_FADV_DONTNEED", "sysconf"):
    delattr(os, name)

def refuse(function):
    def checked(file, *args, **kwargs):
        if str(file).startswith(("/proc", "/sys")):
            raise FileNotFoundError(file)
        return function(file, *args, **kwargs)
    return checked

builtins.open = io.open = refuse(open)
os.open = refuse(os.open)

class Library(ctypes.CDLL):
    def __init__(self, name, *args, **kwargs):
        assert name is not None, "the C library of the process is asked for"
        super().__init__(name, *args, **kwargs)

ctypes.CDLL = Library
if system == "win32":
    sys.modules["msvcrt"] = SimpleNamespace(LK_NBLCK=2, locking=lambda *arguments: None)
psutil.virtual_memory = lambda: SimpleNamespace(available=2**32)
warnings.simplefilter("always")

from lord_fast.cli import main

def run(*words):
    assert main(list(words)) == 0, words

run("doctor")
run("pack", folder + "/photos", folder + "/store", "--size", "32")
small = ("--content-dim", "4", "--class-dim", "8", "--adain-dim", "8", "--loss", "pyramid",
         "--batch-size", "4", "--save-every", "2", "--device", "cpu")
run("train", folder + "/store", "--run", folder + "/run", *small, "--steps", "3")
run("train", folder + "/store", "--run", folder + "/run", *small, "--steps", "3")
"""


@pytest.mark.parametrize(("system", "suffix"), [("darwin", "dylib"), ("win32", "dll")])
def test_everything_works_without_linux_only_calls(system, suffix, tmp_path):
    for name in ("a/1", "a/2", "b/1", "b/2"):
        file = tmp_path / "photos" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((32, 32), 50).save(file)
    command = [sys.executable, "-c", ELSEWHERE, system, str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    # The library of this system has another name.
    assert f"liblord_fast_kernels.{suffix} is not built" in run.stderr
    assert "kernels: reference" in run.stderr
    assert (tmp_path / "run" / "checkpoints").is_dir()


class Mps(torch.Tensor):
    """A CPU tensor that stands for one on an Apple GPU.

    It claims to be on meta, because PyTorch for Linux has no device guard for mps.
    """

    @staticmethod
    def __new__(cls, held):
        if held.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, dispatch_device=True
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        assert function is torch.ops.prim.device.default, f"{function} outside of AppleGpu"
        return torch.device("meta")


class AppleGpu(TorchDispatchMode):
    """Computes with such tensors. Operators that would mix them with CPU tensors fail."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.prim.device.default:
            return torch.device("meta")
        kwargs = dict(kwargs or {})
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        on_gpu = any(isinstance(x, Mps) for x in given)
        if function not in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            mixed = on_gpu and any(not isinstance(x, Mps) and x.dim() for x in given)
            assert not mixed, f"{function}: tensors on mps and on the CPU"
        wanted = kwargs.pop("device", None)
        if wanted is not None:
            on_gpu = torch.device(wanted).type == "meta"
        held = tree_map(lambda x: x.held if isinstance(x, Mps) else x, (args, kwargs))
        out = function(*held[0], **held[1])
        if function._schema.is_mutable:
            return args[0]
        return tree_map(claim, out) if on_gpu else out


def claim(x):
    return Mps(x) if isinstance(x, torch.Tensor) else x


def on_gpu(*tensors):
    return [Mps(tensor.clone()) for tensor in tensors]


def held(tensors):
    return [tensor.held for tensor in tensors]


def test_the_fake_refuses_what_an_apple_gpu_refuses():
    with AppleGpu():
        (one,) = on_gpu(torch.ones(3))
        assert isinstance(one + 1, Mps)
        assert isinstance(torch.ones(2).to(one.device), Mps)
        assert one.cpu().device.type == "cpu"
        assert one.cpu().double().dtype == torch.float64
        with pytest.raises(TypeError, match="float64"):
            one.double()
        with pytest.raises(AssertionError, match="on the CPU"):
            one + torch.ones(3)


@pytest.mark.parametrize("std", [0.0, 1.0])
def test_the_reference_needs_no_float64_on_an_apple_gpu(std, monkeypatch):
    """The same bits as on the CPU, because the stand-in computes there."""
    assert reference._WITHOUT_FLOAT64 == ("mps",)
    monkeypatch.setattr(reference, "_WITHOUT_FLOAT64", ("meta",))
    state, lr, rows = table(90, 16, 400), cosine(3e-3, 1e-5, 500), some_rows(90, 32)
    step, grad = torch.tensor(450), torch.randn(32, 16)
    codes = reference.gather(*state, rows, lr, step, rows, std, 7, *ADAM)
    wanted = clone(state)
    reference.scatter_adam_(*wanted, rows, grad, lr, step, *ADAM)
    with AppleGpu():
        table_, inputs = on_gpu(*state), on_gpu(rows, lr, step, rows)
        got = reference.gather(*table_, *inputs, std, 7, *ADAM)
        assert isinstance(got, Mps)
        reference.scatter_adam_(*table_, *on_gpu(rows, grad, lr, step), *ADAM)
    assert torch.equal(got.held, codes)
    for ours, theirs in zip(held(table_), wanted, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_prefers_cuda_then_mps_then_cpu(monkeypatch, cuda, mps, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert machine.choose_device("auto") == chosen


def test_missing_mps_is_refused():
    if torch.backends.mps.is_available():
        pytest.skip("this is an Apple laptop")
    with pytest.raises(ValueError, match=r"^--device mps: this PyTorch sees no Apple GPU"):
        machine.set_up("mps")


def test_an_apple_gpu_trains_in_float32_on_the_reference(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    found = machine.set_up()
    assert (found.device.type, found.precision) == ("mps", "float32")
    assert found.describe().startswith("Apple GPU (mps)")
    assert kernels.live("mps").name == "reference"
    with machine.autocast(found.device, found.dtype):
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.float32
    with pytest.raises(ValueError, match=r"^--kernels native: .* run on cpu only .* on mps"):
        kernels.use("native", "mps")


def test_free_memory_is_what_the_system_reports():
    total = free_memory(torch.device("cpu"))
    assert 2**26 < total < 2**50
    assert 0.5 < free_memory(torch.device("mps")) / total < 2


def test_a_missing_package_has_no_version():
    assert package_version("torch") == torch.__version__
    assert package_version("no-such-package") is None
