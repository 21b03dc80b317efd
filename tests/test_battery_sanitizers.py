"""The C++ operators under AddressSanitizer and UBSan: odd sizes, both operators, two threads.

`tests/soak/sanitizers.sh` runs all tests of the native kernels in the same way.
"""

import shutil
import subprocess

import pytest
import torch
from adain_cases import assert_equals_float64
from latent_cases import assert_equals_reference

from tests.test_latent_compilers import FLAGS, HERE, NATIVE, Driver

SANITIZED = (
    *(flag for flag in FLAGS if flag not in ("-static", "-O3")), "-O1", "-g",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
)  # fmt: skip


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> Driver:
    compiler = next((c for c in ("g++", "clang++") if shutil.which(c)), None)
    if compiler is None:
        pytest.skip("no C++ compiler")
    program = tmp_path_factory.mktemp("sanitized") / "driver"
    probe = program.with_suffix(".cpp")
    probe.write_text("int main() { return 0; }")
    if subprocess.run((compiler, *SANITIZED, probe, "-o", program), capture_output=True).returncode:
        pytest.skip(f"{compiler} has no sanitizers here (libasan and libubsan)")
    sources = [HERE / "native" / "driver.cpp", *sorted(NATIVE.glob("*.cpp"))]
    subprocess.run((compiler, *SANITIZED, f"-I{NATIVE}", *sources, "-o", program), check=True)
    return Driver((str(program),))


@pytest.mark.parametrize(("dim", "batch"), [(1, 1), (3, 0), (5, 7), (17, 33), (67, 129)])
def test_odd_sizes_read_and_write_nothing_outside_their_arrays(driver, dim, batch):
    assert_equals_reference(driver.gather, driver.scatter_adam_, dim, batch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 17, 5, 13), (2, 67, 1, 3)])
def test_adain_reads_and_writes_nothing_outside_its_arrays(driver, shape, dtype):
    assert_equals_float64(driver.adain, shape, dtype)


@pytest.mark.parametrize("operator", ["gather", "scatter"])
@pytest.mark.parametrize("row", [-1, 3, 1 << 40, -(1 << 63), (1 << 63) - 1])
def test_rows_outside_the_table_are_refused_before_they_are_read(driver, operator, row):
    table, last_step = torch.zeros(3, 5), torch.zeros(3, dtype=torch.int64)
    state = (table, table.clone(), table.clone(), last_step, torch.tensor([0, row]))
    schedule, adam = (torch.ones(4), torch.tensor(2)), (0.5, 0.999, 1e-8)
    noise = (torch.tensor([0, 1]), 1.0, 0)
    calls = {
        "gather": lambda: driver.gather(*state, *schedule, *noise, *adam),
        "scatter": lambda: driver.scatter_adam_(*state, torch.ones(2, 5), *schedule, *adam),
    }
    with pytest.raises(AssertionError) as caught:  # the driver's exit status is not 0
        calls[operator]()
    assert "Sanitizer" not in str(caught.value)
    assert "runtime error" not in str(caught.value)
