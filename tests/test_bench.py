"""`lord-fast bench`: what scripts read. Figures themselves are not tested."""

import json

import pytest
import torch

from lord_fast.bench import latent, step
from lord_fast.bench.measure import Case, measure, rows_of
from lord_fast.cli import main
from lord_fast.machine import set_up


def test_bench_latent_writes_its_rows(monkeypatch, tmp_path, capsys):
    small = {"STEP_SIZE": 300, "STEP_BATCHES": (4, 8), "STEP_ROUNDS": 1, "SCALING_ROUNDS": 1}
    small |= {"SCALING_SIZES": (100, 200), "NOISE_BATCHES": (4,), "NOISE_ROUNDS": 1}
    for name, value in small.items():
        monkeypatch.setattr(latent, name, value)
    assert main(["bench", "latent", "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["machine"]["torch"] == torch.__version__
    assert found["machine"]["kernels"].startswith(("native", "reference", "triton"))
    assert {tuple(row) for row in found["rows"]} == {
        ("group", "name", "params", "median_ms", "min_ms", "max_ms", "ratio_to_base")
    }
    steps = [row for row in found["rows"] if row["group"] == "step, N=300 B=8 D=128"]
    assert [row["name"] for row in steps[:4]] == [
        "dense Adam, fused", "dense Adam", "SparseAdam (another optimizer)", "lord-fast",
    ]  # fmt: skip
    assert steps[3]["params"] == {"N": 300, "B": 8, "D": 128}
    printed = capsys.readouterr()
    assert "SparseAdam" in printed.out
    assert "agrees with dense Adam" in printed.err


def test_cases_take_turns_and_the_first_is_the_base():
    order = []

    def case(name):
        def prepare():
            order.append(f"prepare {name}")
            return lambda: order.append(name)

        return Case("group", name, {}, prepare)

    measure([case("a"), case("b")], rounds=2, device=torch.device("cpu"))
    turn = [*("prepare a", "a") * 5, *("prepare b", "b") * 5]
    assert order == turn * 2
    rows = rows_of([case("a"), case("b")], [[2.0, 4.0, 90.0], [1.0, 2.0, 3.0]])
    assert [row.median_ms for row in rows] == [4000, 2000]
    assert [row.ratio_to_base for row in rows] == [1, 2]
    assert (rows[1].min_ms, rows[1].max_ms) == (1000, 3000)


def test_the_first_step_of_every_contender_is_adams():
    """Beside FBGEMM on the CPU, whose optimizer is another one; later SparseAdam differs too."""
    # None so small that SparseAdam's epsilon, which it does not correct for the bias, is felt.
    device, rows, grad = torch.device("cpu"), torch.arange(8), torch.rand(8, latent.DIM) + 0.5
    assert latent.agreement(device) < 1e-5
    start, after = torch.rand(50, latent.DIM), []
    for make in (latent.Dense, latent.DenseFused, latent.Sparse):
        one = make(50, latent.DIM, device)
        one.table.weight.data.copy_(start)
        one.step(rows, grad)
        after.append(one.table.weight.detach())
    torch.testing.assert_close(after[1], after[0])
    torch.testing.assert_close(after[2], after[0])
    assert (after[0] - start)[:8].abs().min() > 1e-3


def test_kind_of_bench_is_checked():
    with pytest.raises(SystemExit) as caught:
        main(["bench", "sing"])
    assert caught.value.code == 2


@pytest.fixture(scope="module")
def tiny():
    """The step's bench, small."""
    with step.setting(set_up("cpu", "float32", 2), batch=2, size=32, adain_dim=8) as found:
        yield found


def test_the_published_step_is_the_base_of_the_ladder(tiny):
    rows = step.step_rows(tiny, rounds=1)
    assert [row.name for row in rows if "wall" in row.group] == step.forms("cpu")
    assert rows[0].name == "published"
    assert rows[0].ratio_to_base == 1


def test_a_step_over_the_size_of_the_tables(tiny):
    rows = step.scaling_rows(tiny, "images", (700, 5000), rounds=1)
    assert [row.params for row in rows] == [{"images": 700}, {"images": 5000}]
    rows = step.scaling_rows(tiny, "classes", (10, 500), rounds=1)
    assert [row.params for row in rows] == [{"classes": 10}, {"classes": 500}]


def test_our_step_needs_fewer_operations(tiny):
    counted = step.operations(tiny)
    assert counted["ours, cached features"] < counted["ours"] < 0.7 * counted["published"]
