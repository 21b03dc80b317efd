"""Tests of what `lord-fast bench` measures and writes. The times themselves are not tested."""

import json

import pytest
import torch
from PIL import Image

from lord_fast.bench import latent, step, train
from lord_fast.bench.measure import Case, Row, measure, rows_of
from lord_fast.bench.plot import draw
from lord_fast.bench.published import OURS
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


def test_cases_take_turns_and_the_first_case_is_the_base():
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


def test_the_first_step_of_every_adam_is_the_same():
    """SparseAdam differs from the second step on. FBGEMM has no Adam on the CPU."""
    # SparseAdam does not correct epsilon for the bias, which would show for small gradients.
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


def test_an_unknown_benchmark_is_refused():
    with pytest.raises(SystemExit) as caught:
        main(["bench", "sing"])
    assert caught.value.code == 2


@pytest.fixture(scope="module")
def tiny():
    """A small setting for the benchmark of the step."""
    with step.setting(set_up("cpu", "float32", 2), batch=2, size=32, adain_dim=8) as found:
        yield found


@pytest.fixture(scope="module")
def steps(tiny):
    return step.ladder(tiny)


def test_the_published_step_is_the_base_of_the_ladder(tiny, steps):
    rows = step.step_rows(tiny, steps, rounds=1, calls=1)
    names = [form.name for form in step.forms("cpu")]
    for clock in ("wall", "processor"):
        assert [row.name for row in rows if clock in row.group] == names
    assert names[0] == "published, float32"
    assert rows[0].ratio_to_base == 1


def test_the_forms_of_a_gpu(monkeypatch):
    monkeypatch.setattr(step, "has_fast_bf16", lambda device: True)
    ladder = {form.name: form for form in step.forms("cuda")}
    assert next(iter(ladder)) == "published, TF32"
    last = ladder["bf16, compiled, CUDA graph, cached features"]
    assert last.flags == dict.fromkeys(("compile", "cuda_graph", "cache_target_features"), "on")
    assert [form.name for form in step.forms("cpu")][-1] == "bf16, compiled, cached features"


def test_steps_are_timed_for_growing_tables(tiny, monkeypatch):
    rows = step.scaling_rows(tiny, "images", (700, 5000), rounds=1)
    assert [row.params["images"] for row in rows] == [700, 5000]
    rows = step.scaling_rows(tiny, "classes", (10, 500), rounds=1)
    assert [row.params["classes"] for row in rows] == [10, 500]
    assert all(row.params["memory_mb"] >= 0 for row in rows)
    monkeypatch.setattr(step, "free_memory", lambda device: 10 * 2**20)
    rows = step.scaling_rows(tiny, "images", (700, 10_000_000), rounds=1)
    assert [row.params["images"] for row in rows] == [700]


def test_growing_tables_are_timed_in_a_new_process():
    shape = {"batch": 2, "size": 32, "adain_dim": 8}
    rows = step.scaling_alone(shape, 2, "images", (700, 800))
    assert [row.params["images"] for row in rows] == [700, 800]


def test_our_step_needs_fewer_operations(tiny):
    counted = step.operations(tiny)
    assert counted["ours, cached features"] < counted["ours"] < 0.7 * counted["published"]


def test_our_step_calls_fewer_operators(tiny, steps):
    counted = step.launches(tiny, steps)
    assert counted["exact rewrites, float32"] < counted["published, float32"]


def test_convolutions_take_a_share_of_every_step(tiny, steps):
    assert all(0 < share < 1 for share in step.convolution_shares(tiny, steps).values())


def test_bench_train_returns_the_differences_of_the_losses(tiny):
    rows, differences = train.train_rows(tiny, torch.float32, steps=4)
    assert [row.name for row in rows] == ["published", OURS, train.NUDGED]
    for largest, last in differences.values():
        assert 0 <= last <= largest < 1e-4


def test_the_plot_is_a_picture(tmp_path):
    rows = [Row(group, name, {}, 2.0, 1.0, 4.0, 3.0) for group in "ab" for name in "cd"]
    draw(tmp_path / "found.png", rows, "here")
    with Image.open(tmp_path / "found.png") as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(2**20)) > 10


def test_the_share_of_saves_is_that_of_the_default_interval(tiny):
    row, share = step.save_row(tiny, step_ms=2.0, rounds=1)
    assert row.median_ms > 0
    every = tiny.config.logging.save_every
    assert share == pytest.approx(row.median_ms / (every * 2.0 + row.median_ms))
