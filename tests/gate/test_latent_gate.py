"""Checks of the compiled kernels for sm_80 and sm_90, which need neither a GPU nor a driver.

The kernels are compiled as in a real launch. The tests intercept the launches, and Triton's own
binder turns their arguments into types, constants and alignments.
"""

import re
import subprocess
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.knobs import nvidia
from triton.runtime.jit import create_function_from_signature

from lord_fast.kernels import Adam
from lord_fast.kernels.triton import gather, scatter_adam_
from lord_fast.kernels.triton.latent import LONG, UNROLL, gather_kernel, scatter_adam_kernel

ARCHS = (80, 90)
DIMS = (64, 128, 256, 512, 1024)
REGISTERS = 72  # lets 28 of an SM's 64 warps run, enough because all loads are issued early
EXCESS_BYTES = 1.25
BYTES = {"f32": 4, "i64": 8}
INSTRUCTIONS = {"gather": 1060, "unique": 1140, "repeats": 1270, "long": 1160}
"""Largest number of instructions of a kernel for rows of up to 128 columns."""
FLOAT64 = 54
"""Largest number of float64 instructions. They are the products that give exponents of powers."""


class Compiled(NamedTuple):
    """The intermediate code and the machine code of a compiled kernel."""

    ttgir: str
    sass: str
    usage: dict[str, int]
    threads: int


def caught(kernel, launch: Callable[[], None], arch: int, folder) -> Compiled:
    """Compile the kernel that `launch` would run on a device of that architecture."""
    target = GPUTarget("cuda", arch, 32)
    backend = make_backend(target)
    found = []

    def run(*args, grid, warmup, **kwargs):
        bind = create_function_from_signature(kernel.signature, kernel.params, backend)
        bound, specialization, options = bind(*args, **kwargs)
        options, signature, constants, attributes = kernel._pack_args(
            backend, kwargs, bound, specialization, options
        )
        source = ASTSource(kernel, signature, constants, attributes)
        found.append(triton.compile(source, target=target, options=options.__dict__))

    kernel.run = run
    try:
        launch()
    finally:
        del kernel.run
    (compiled,) = found
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    usage = output(nvidia.cuobjdump.path, "-res-usage", cubin)
    return Compiled(
        compiled.asm["ttgir"],
        output(nvidia.nvdisasm.path, "-c", cubin),
        {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)},
        32 * compiled.metadata.num_warps,
    )


def output(*command) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def accesses(ttgir: str) -> list[tuple[int, int]]:
    """(elements, bytes per element) of every load and store of global memory."""
    pattern = r"tt\.(?:load|store) .*: (?:tensor<(\d+)x)?!tt\.ptr<(\w+)>"
    return [(int(count or 1), BYTES[kind]) for count, kind in re.findall(pattern, ttgir)]


def instructions(sass: str) -> list[str]:
    """The names of all instructions, without the padding after the last one."""
    names = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+ )?([A-Z][\w.]*)", sass)
    return [name for name in names if name != "NOP"]


def of_float64(names: list[str]) -> list[str]:
    """The instructions that compute in float64 or convert to or from it."""
    return [name for name in names if re.match(r"D[A-Z]|MUFU.*64|[FI]2[FI].*F64", name)]


def faults(kernel: Compiled, dim: int, needed: int) -> list[str]:
    """List the faults of a kernel that handles a row of `dim` and must move `needed` bytes."""
    found = []
    if kernel.usage["REG"] > REGISTERS:
        found.append(f"{kernel.usage['REG']} registers, more than {REGISTERS}")
    if kernel.usage["STACK"] or kernel.usage["LOCAL"] or re.search(r"\b(LDL|STL)\b", kernel.sass):
        found.append(f"local memory: {kernel.usage}")

    row = [(count, size) for count, size in accesses(kernel.ttgir) if count >= dim]
    rest = len(accesses(kernel.ttgir)) - len(row)
    vectors = sum(count * size // (16 * kernel.threads) for count, size in row)
    wide = len(re.findall(r"\b(?:LDG|STG)\.E\S*\.128\b", kernel.sass))
    narrow = len(re.findall(r"\b(?:LDG|STG)\.E", kernel.sass)) - wide
    if wide < vectors or narrow > rest:
        found.append(f"{wide} accesses of 128 bits, not {vectors}; {narrow} narrower, not {rest}")

    # Columns beyond the row are masked. Everything else is counted as executed once.
    moved = sum(min(count, dim) * size for count, size in accesses(kernel.ttgir))
    if moved > EXCESS_BYTES * needed:
        found.append(f"{moved} bytes a row, more than {EXCESS_BYTES} x {needed}")
    return found


def arguments(dim: int, offset: int = 0):
    """State, rows, learning rates and step. An offset of 1 misaligns the tables."""
    tables = (torch.zeros(8 * dim + offset)[offset:].view(8, dim) for _ in range(3))
    state = (*tables, torch.zeros(8, dtype=torch.int64))
    return *state, torch.arange(4), torch.ones(9), torch.tensor(3)


def gather_launch(dim: int, offset: int = 0) -> Callable[[], None]:
    *state, rows, lr, step = arguments(dim, offset)
    return lambda: gather(*state, rows, lr, step, rows, 1.0, 7, *Adam())


def scatter_launch(dim: int, unique: bool, batch: int = 4) -> Callable[[], None]:
    *state, _, lr, step = arguments(dim)
    rows, grad = torch.zeros(batch, dtype=torch.int64), torch.zeros(batch, dim)
    return lambda: scatter_adam_(*state, rows, grad, lr, step, *Adam(), unique=unique)


def needed_bytes(name: str, dim: int) -> int:
    """The bytes of the row, its gradients or its code, and its ids, which an operator must move.

    A row that repeats counts with the gradients that one iteration of its loop reads.
    """
    if name == "gather":
        return 4 * (4 * dim) + 8 * 3
    gradients = 1 if name == "unique" else 1 + UNROLL.value
    return (6 + gradients) * (4 * dim) + 8 * (2 + gradients)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("name", ["gather", "unique", "repeats"])
def test_compiled_kernel_has_no_faults(name, dim, arch, tmp_path):
    if name == "gather":
        kernel = caught(gather_kernel, gather_launch(dim), arch, tmp_path)
    else:
        launch = scatter_launch(dim, unique=name == "unique")
        kernel = caught(scatter_adam_kernel, launch, arch, tmp_path)
    assert faults(kernel, dim, needed_bytes(name, dim)) == []


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("dim", [128, 1024])
def test_long_segments_stay_in_registers(dim, arch, tmp_path):
    """Their rows are summed by four warps, whose narrower accesses are not checked."""
    launch = scatter_launch(dim, unique=False, batch=8 * LONG)
    kernel = caught(scatter_adam_kernel, launch, arch, tmp_path)
    assert kernel.threads == 128
    assert kernel.usage["STACK"] == kernel.usage["LOCAL"] == 0
    assert kernel.usage["REG"] <= (REGISTERS if dim == 128 else 2 * REGISTERS)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("name", list(INSTRUCTIONS))
def test_instructions_are_few_and_hardly_any_is_float64(name, arch, tmp_path):
    kernel, launch = scatter_adam_kernel, scatter_launch(128, name == "unique")
    if name == "gather":
        kernel, launch = gather_kernel, gather_launch(128)
    elif name == "long":
        launch = scatter_launch(128, unique=False, batch=8 * LONG)
    found = instructions(caught(kernel, launch, arch, tmp_path).sass)
    assert len(found) <= INSTRUCTIONS[name]
    assert len(of_float64(found)) <= FLOAT64


@pytest.mark.parametrize("arch", ARCHS)
def test_gate_rejects_a_kernel_without_vector_loads(arch, tmp_path):
    """Compiles the same kernel for tables that are not aligned to 16 bytes."""
    kernel = caught(gather_kernel, gather_launch(128, offset=1), arch, tmp_path)
    (fault,) = faults(kernel, 128, needed_bytes("gather", 128))
    assert "1 accesses of 128 bits, not 4; 18 narrower, not 6" in fault


@triton.jit
def slow_sine_kernel(out_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out_ptr + at, tl.sin(at.to(tl.float32)))


def test_gate_rejects_local_memory_and_waste(tmp_path):
    """The library's sine keeps a table on the stack, and the kernel moves 512 bytes, not 256."""
    out = torch.zeros(128)
    kernel = caught(slow_sine_kernel, lambda: slow_sine_kernel[(1,)](out, 128), 80, tmp_path)
    found = " ".join(faults(kernel, 128, 256))
    assert "local memory" in found
    assert "512 bytes a row" in found
