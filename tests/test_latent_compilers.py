"""Tests the C++ operators with other compilers, and on Arm in an emulator.

On Arm the baseline kernels run, whose vectors of 4 floats the compiler turns into NEON. Clang for
Arm is the closest to an Apple laptop that Linux can run. Cases without their compiler or emulator
are skipped. On Debian, install clang, g++-aarch64-linux-gnu and qemu-user.
"""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
import torch
from adain_cases import assert_equals_float64
from latent_cases import (
    assert_equals_reference,
    assert_error_is_below_dense_float32,
    table,
)

from lord_fast.kernels import Adam, reference
from lord_fast.kernels.ops import replay_terms

HERE = Path(__file__).parent
NATIVE = HERE.parent / "kernels" / "native"
FLAGS = (
    "-std=c++17", "-O3", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-ffp-contract=fast",
    "-fno-math-errno", "-static", "-pthread", "-DLORD_FAST_INSTRUCTIONS=baseline",
)  # fmt: skip
ARM = "--target=aarch64-linux-gnu"
CROSS = "aarch64-linux-gnu-g++"
CASES = {
    "clang": (("clang++",), ()),
    "gcc-arm": ((CROSS,), ("qemu-aarch64",)),
    "clang-arm": (("clang++", ARM), ("qemu-aarch64",)),
}


class Driver:
    """The operators by a program of its own, called as the reference is."""

    def __init__(self, command: tuple[str, ...]):
        self.command = command

    def gather(self, w, m, v, last_step, rows, lr, step, noise_ids, std, seed, *adam):
        grad = torch.zeros(len(rows), w.shape[1])
        out = self._run(0, (w, m, v, last_step, rows, noise_ids, lr, grad), step, std, seed, adam)
        return torch.frombuffer(bytearray(out or 4), dtype=torch.float32)[: grad.numel()].view_as(
            grad
        )

    def scatter_adam_(self, w, m, v, last_step, rows, grad, lr, step, *adam):
        out = self._run(1, (w, m, v, last_step, rows, rows, lr, grad), step, 0.0, 0, adam)
        for tensor in (w, m, v, last_step):
            part, out = out[: tensor.nbytes], out[tensor.nbytes :]
            tensor.copy_(torch.frombuffer(bytearray(part), dtype=tensor.dtype).view_as(tensor))

    def _run(self, operation, tensors, step, std, seed, adam) -> bytes:
        (num_rows, dim), batch, total = tensors[0].shape, len(tensors[4]), len(tensors[6])
        terms = replay_terms(*adam[:2])
        header = struct.pack(
            "<8q4d", operation, num_rows, dim, batch, total, int(step), seed, terms, *adam, std
        )
        arrays = b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)
        return self._call(header + arrays)

    def adain(self, x, grad, added, bias, scale, slope, eps) -> list[torch.Tensor]:
        """The three results of leaky_adain and the four gradients."""
        images, channels, height, width = x.shape
        bf16 = x.dtype == torch.bfloat16
        header = struct.pack(
            "<8q4d", 2, images, channels, height * width, bf16, 0, 0, 0, slope, 0.0, eps, 0.0
        )
        maps = (tensor.permute(0, 2, 3, 1).contiguous() for tensor in (x, grad))
        tensors = (*maps, added, bias, scale)
        out = self._call(header + b"".join(t.flatten().view(torch.uint8).numpy().tobytes()
                                           for t in tensors))  # fmt: skip
        found = []
        for like in (x, bias, bias, x, bias, bias, bias):
            part, out = out[: like.nbytes], out[like.nbytes :]
            values = torch.frombuffer(bytearray(part), dtype=like.dtype)
            if like is x:
                values = values.view(images, height, width, channels).permute(0, 3, 1, 2)
            found.append(values.view(like.shape) if like is bias else values)
        return found

    def _call(self, given: bytes) -> bytes:
        run = subprocess.run(self.command, input=given, capture_output=True)
        assert run.returncode == 0, run.stderr.decode()
        return run.stdout


@pytest.fixture(scope="module", params=CASES)
def driver(request, tmp_path_factory) -> Driver:
    compiler, emulator = CASES[request.param]
    # Clang takes the libraries for Arm from GCC's.
    needed = (compiler[0], *emulator, *((CROSS,) if ARM in compiler else ()))
    missing = [name for name in needed if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    program = tmp_path_factory.mktemp("driver") / "driver"
    sources = [HERE / "native" / "driver.cpp", *sorted(NATIVE.glob("*.cpp"))]
    subprocess.run((*compiler, *FLAGS, f"-I{NATIVE}", *sources, "-o", program), check=True)
    return Driver((*emulator, str(program)))


@pytest.mark.parametrize("batch", [0, 7, 128])
@pytest.mark.parametrize("dim", [1, 3, 16, 130])
def test_equals_reference(driver, dim, batch):
    assert_equals_reference(driver.gather, driver.scatter_adam_, dim, batch)


@pytest.mark.parametrize("adam", [Adam(), Adam(0.9, 0.99), Adam(0.0, 0.999), Adam(eps=1e-3)])
def test_error_is_below_that_of_dense_float32_adam(driver, adam):
    assert_error_is_below_dense_float32(driver.gather, driver.scatter_adam_, 16, adam)


def test_noise_is_the_references(driver):
    state, lr = table(5, 130, 0), torch.ones(3)
    ids, seed = torch.tensor([0, 3, 2**33, 7]), 2**40 + 5
    inputs = (*state, torch.arange(4), lr, torch.tensor(2), ids, 1.0, seed, *Adam())
    ours, wanted = driver.gather(*inputs), reference.gather(*inputs)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=2e-6)
    assert (ours - state[0][:4]).std() > 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adain_equals_the_reference(driver, dtype):
    assert_equals_float64(driver.adain, (3, 11, 9, 8), dtype)
