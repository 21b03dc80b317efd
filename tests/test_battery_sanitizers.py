"""The C++ operators under AddressSanitizer and UBSan: odd sizes, both operators, two threads.

`tests/soak/sanitizers.sh` runs all tests of the native kernels in the same way.
"""

import shutil
import subprocess

import pytest
import torch
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


@pytest.mark.parametrize("operator", ["gather", "scatter"])
def test_rows_outside_the_table_are_refused_before_they_are_read(driver, operator):
    dim, table = 5, torch.zeros(3, 5)
    last_step, lr, step = torch.zeros(3, dtype=torch.int64), torch.ones(4), torch.tensor(2)
    for row in (-1, 3, 1 << 40, -(1 << 63), (1 << 63) - 1):
        rows = torch.tensor([0, row])
        arguments = (table, table.clone(), table.clone(), last_step, rows)
        adam = (0.5, 0.999, 1e-8)
        call = {
            "gather": lambda t=arguments: driver.gather(
                *t, lr, step, torch.tensor([0, 1]), 1.0, 0, *adam
            ),
            "scatter": lambda t=arguments: driver.scatter_adam_(
                *t, torch.ones(2, dim), lr, step, *adam
            ),
        }[operator]
        with pytest.raises(AssertionError) as caught:
            call()
        assert "Sanitizer" not in str(caught.value)
        assert "runtime error" not in str(caught.value)
