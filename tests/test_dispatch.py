"""The selection of an implementation, its messages, and torch.compile over the operators."""

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import types
import warnings

import pytest
import torch
from latent_cases import clone, table
from torch._dynamo.testing import CompileCounterWithBackend

from lord_fast import kernels
from lord_fast.cli import main
from lord_fast.kernels import dispatch, native
from lord_fast.kernels.native import loader
from tests.test_train import train

ADAM = kernels.Adam()
on_the_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")


@pytest.fixture(autouse=True)
def restored():
    yield
    kernels.use("auto")


@pytest.fixture
def library(monkeypatch, tmp_path):
    """An empty path as the native library's, in the state of a process that has just started."""
    path = tmp_path / native.LIBRARY.name
    monkeypatch.setattr(loader, "LIBRARY", path)
    monkeypatch.setattr(loader, "_library", None)
    monkeypatch.setattr(dispatch, "_told", set())
    yield path
    monkeypatch.undo()


def takes_float64() -> bool:
    """Whether the reference runs. It takes any dtype, the native kernels only float32."""
    state = [t.double() if t.is_floating_point() else t for t in table(3, 4, 0)]
    try:
        codes = kernels.gather(
            kernels.Table(*state), torch.arange(3), torch.ones(1), torch.tensor(0), adam=ADAM
        )
    except ValueError:
        return False
    assert codes.dtype == torch.float64
    return True


def test_auto_selects_the_native_kernels():
    kernels.use("reference")
    kernels.use("auto")
    assert kernels.live("cpu") == ("native", native.instructions())
    assert not takes_float64()


@pytest.mark.parametrize("device", [None, "cpu", "cuda"])
def test_reference_runs_everywhere(device):
    kernels.use("reference", device)
    assert str(kernels.live("cpu")) == "reference (--kernels reference)"
    assert str(kernels.live("cuda")) == "reference (--kernels reference)"
    assert takes_float64()


def test_native_keeps_the_reference_on_other_devices():
    kernels.use("native", "cpu")
    assert kernels.live("cpu").name == "native"
    assert str(kernels.live("cuda")) == "reference (--kernels native)"
    assert kernels.live("mps").name == "reference"


def refused(*choice) -> str:
    """The error of a refused choice, after checking that the selection has not changed."""
    before = kernels.live("cpu"), kernels.live("cuda"), takes_float64()
    with pytest.raises(ValueError, match=f"^--kernels {choice[0]}: ") as error:
        kernels.use(*choice)
    assert (kernels.live("cpu"), kernels.live("cuda"), takes_float64()) == before
    return str(error.value)


def test_an_unavailable_implementation_is_refused(monkeypatch):
    assert "run on cpu only and the tables are on cuda" in refused("native", "cuda")
    assert "run on cuda only and the tables are on cpu" in refused("triton", "cpu")
    assert "choose from auto, reference, native, triton" in refused("quick")
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'lord-fast[triton]'" in refused("triton")


@on_the_cpu
def test_triton_needs_a_gpu():
    pytest.importorskip("triton", reason="Triton is not installed")
    assert "sees no GPU" in refused("triton")


def assert_native_is_missing(reason: str):
    """Assert that `use` warns exactly once with `reason` and falls back to the reference."""
    with pytest.warns(RuntimeWarning, match="slow reference kernels") as told:
        kernels.use("auto")
    assert len(told) == 1
    assert reason in str(told[0].message)
    assert reason in str(kernels.live("cpu"))
    assert kernels.live("cpu").name == "reference"
    assert takes_float64()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernels.use("auto")
        kernels.use("reference")
    assert reason in refused("native")
    assert "python setup.py build_ext --inplace" in refused("native")


def test_a_missing_library_warns_once_and_falls_back_to_the_reference(library):
    assert_native_is_missing(f"{library.name} is not built")


def test_a_broken_library_warns_once_and_falls_back_to_the_reference(library):
    library.write_text("nothing that can be loaded")
    assert_native_is_missing(f"{library.name} cannot be loaded")


def test_an_outdated_library_warns_once_and_falls_back_to_the_reference(library, monkeypatch):
    library.symlink_to(loader.Path(loader.__file__).with_name(library.name))
    monkeypatch.setattr(loader, "ABI_VERSION", 99)
    assert_native_is_missing("has version 2 but version 99 is needed")


def test_the_run_header_and_doctor_print_the_live_kernels(glyph_store, tmp_path, capsys):
    assert train(glyph_store, tmp_path / "a", "--steps", "1", "--kernels", "reference") == 0
    assert "kernels: reference (--kernels reference)" in capsys.readouterr().err
    assert train(glyph_store, tmp_path / "b", "--steps", "1") == 0
    assert re.search(r"kernels: native \((baseline|avx2|avx512)\)", capsys.readouterr().err)
    assert main(["doctor"]) == 0
    assert re.search(r"kernels, cpu +│ native \(", capsys.readouterr().out)


@pytest.fixture
def without_versions(monkeypatch):
    """As where Triton comes as pytorch-triton or triton-windows."""

    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "triton" or None)


def test_a_triton_without_a_distribution_of_its_name(without_versions, capsys):
    kernels.use("auto")
    assert str(kernels.live("cuda")) == "triton (Triton of an unknown version)"
    assert main(["doctor"]) == 0
    found = capsys.readouterr().out
    assert re.search(r"│ triton +│ installed, version unknown", found)
    assert re.search(r"│ tensorboard +│ not installed", found)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Failed to find C compiler. Please specify via CC environment variable"),
        subprocess.CalledProcessError(1, ["gcc", "main.c"]),
    ],
    ids=["no compiler", "no Python.h"],
)
def test_triton_without_a_c_compiler_says_what_to_install(monkeypatch, error):
    def gather(*arguments):
        raise error

    stub = types.SimpleNamespace(gather=gather)
    monkeypatch.setitem(sys.modules, "lord_fast.kernels.triton", stub)
    monkeypatch.setattr(kernels, "triton", stub, raising=False)
    with pytest.raises(ValueError, match="apt install gcc python3-dev"):
        dispatch._triton("gather")()


@pytest.mark.parametrize("choice", ["reference", "native"])
def test_a_table_without_columns_is_refused(choice):
    kernels.use(choice)
    state, rows = kernels.Table(*table(5, 0, 3)), torch.tensor([1, 2])
    lr, now, wanted = torch.ones(9), torch.tensor(3), r"weight \[5, 0\].* at least one column"
    with pytest.raises(ValueError, match=wanted):
        kernels.gather(state, rows, lr, now, adam=ADAM)
    with pytest.raises(ValueError, match=wanted):
        kernels.scatter_adam_(state, rows, torch.ones(2, 0), lr, now, adam=ADAM)
    with pytest.raises(ValueError, match=wanted):
        native.gather(*state, rows, lr, now, rows, 0.0, 0, *ADAM)


@pytest.mark.parametrize("choice", ["reference", "native"])
@pytest.mark.parametrize("row", [-1, 5])
def test_a_row_outside_of_the_table_is_refused(choice, row):
    kernels.use(choice)
    state, rows = kernels.Table(*table(5, 4, 3)), torch.tensor([1, row])
    before, lr, now = clone(state), torch.ones(9), torch.tensor(3)
    with pytest.raises(IndexError, match=f"rows: {row} is outside the table, which has 5 rows"):
        kernels.gather(state, rows, lr, now, adam=ADAM)
    with pytest.raises(IndexError, match=f"rows: {row} is outside the table, which has 5 rows"):
        kernels.scatter_adam_(state, rows, torch.ones(2, 4), lr, now, adam=ADAM)
    assert all(torch.equal(a, b) for a, b in zip(state, before, strict=True))


@pytest.mark.parametrize("row", [-1, 5])
def test_debug_mode_checks_rows_before_any_kernel(monkeypatch, row):
    """The operators are replaced, as by kernels that check nothing."""
    called = []
    monkeypatch.setattr(kernels.ops.torch.ops, "lord_fast", types.SimpleNamespace(
        gather=lambda *a: called.append(a), scatter_adam_=lambda *a: called.append(a)
    ))  # fmt: skip
    state, rows = kernels.Table(*table(5, 4, 3)), torch.tensor([1, row])
    lr, now = torch.ones(9), torch.tensor(3)
    kernels.gather(state, rows, lr, now, adam=ADAM)
    kernels.scatter_adam_(state, rows, torch.ones(2, 4), lr, now, adam=ADAM)
    assert len(called) == 2
    monkeypatch.setattr(kernels.ops, "DEBUG", True)
    with pytest.raises(IndexError, match=f"rows: {row} is outside the table"):
        kernels.gather(state, rows, lr, now, adam=ADAM)
    with pytest.raises(IndexError, match=f"rows: {row} is outside the table"):
        kernels.scatter_adam_(state, rows, torch.ones(2, 4), lr, now, adam=ADAM)
    assert len(called) == 2


@pytest.mark.parametrize("error", [None, RuntimeError("Failed to find C compiler")])
def test_the_probe_launches_both_operators_or_says_what_to_install(monkeypatch, error):
    """CPU tensors and a stand-in for Triton replace the GPU."""
    launched = []

    def launch(name):
        def run(*arguments):
            if error:
                raise dispatch._cannot_launch(error)
            launched.append(name)

        return run

    monkeypatch.setattr(dispatch, "_integers", lambda *values: torch.tensor(values))
    zeros = torch.zeros
    monkeypatch.setattr(dispatch.torch, "zeros", lambda *size, device: zeros(*size))
    ones = torch.ones
    monkeypatch.setattr(dispatch.torch, "ones", lambda *size, device: ones(*size))
    monkeypatch.setattr(dispatch, "gather", lambda *a, **k: launch("gather")())
    monkeypatch.setattr(dispatch, "scatter_adam_", lambda *a, **k: launch("scatter_adam_")())
    monkeypatch.setitem(dispatch._live, "cuda", dispatch.Live("triton", "here"))
    if error:
        with pytest.raises(ValueError, match="apt install gcc python3-dev"):
            kernels.probe("cuda")
        return
    kernels.probe("cuda")
    assert launched == ["gather", "scatter_adam_"]
    monkeypatch.setitem(dispatch._live, "cuda", dispatch.Live("reference", "--kernels reference"))
    kernels.probe("cuda")
    kernels.probe("cpu")
    assert len(launched) == 2


@on_the_cpu
def test_train_refuses_unavailable_kernels(glyph_store, tmp_path, capsys):
    assert train(glyph_store, tmp_path / "run", "--kernels", "triton") == 2
    assert "--kernels triton: " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("choice", ["reference", "native"])
@pytest.mark.parametrize("operator", ["gather", "scatter_adam_"])
def test_opcheck(operator, choice):
    kernels.use(choice)
    state, rows = table(9, 6, 5), torch.tensor([8, 0, 8])
    lr, step = torch.ones(20), torch.tensor(7)
    if operator == "gather":
        arguments = (*state, rows, lr, step, rows + 10, 1.0, 3, *ADAM)
    else:
        arguments = (*state, rows, torch.ones(3, 6), lr, step, *ADAM, False, None)
    torch.library.opcheck(getattr(torch.ops.lord_fast, operator).default, arguments)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_fakes_have_the_shapes_of_the_results(device):
    """Fake tensors need no memory and no GPU, so this also checks the shapes on CUDA."""
    with torch._subclasses.FakeTensorMode():
        integers = {"dtype": torch.int64, "device": device}
        moments = (torch.zeros(50, 6, device=device) for _ in range(3))
        state = kernels.Table(*moments, torch.zeros(50, **integers))
        rows, lr, now = (
            torch.zeros(3, **integers), torch.ones(9, device=device), torch.zeros((), **integers),
        )  # fmt: skip
        codes = kernels.gather(state, rows, lr, now, adam=ADAM, std=1.0)
        assert (codes.shape, codes.dtype, codes.device.type) == ((3, 6), torch.float32, device)
        kernels.scatter_adam_(state, rows, codes, lr, now, adam=ADAM, unique=True)


@pytest.mark.parametrize("choice", ["reference", "native"])
def test_one_compiled_graph_serves_every_step(choice):
    kernels.use(choice)
    lr = torch.full((50,), 1e-2)
    eager, compiled = kernels.Table(*table(20, 6, 3)), kernels.Table(*table(20, 6, 3))

    def update(state, rows, now):
        codes = kernels.gather(state, rows, lr, now, adam=ADAM, std=1.0, seed=3)
        kernels.scatter_adam_(state, rows, codes.sin() + codes, lr, now, adam=ADAM)
        return codes

    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    run = torch.compile(update, fullgraph=True, backend=counter)
    for step in range(4, 12):
        rows, now = torch.randint(20, (8,)), torch.tensor(step)
        assert torch.equal(run(compiled, rows, now), update(eager, rows, now))
        assert all(torch.equal(a, b) for a, b in zip(compiled, eager, strict=True))
    assert counter.frame_count == 1
    assert not torch.equal(clone(compiled)[0], table(20, 6, 3)[0])
