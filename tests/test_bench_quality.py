"""Tests of `lord-fast bench quality`. The times themselves are not tested."""

import json
from dataclasses import replace as changed
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lord_fast.bench import arms, points, quality
from lord_fast.bench.arms import PUBLISHED, PresetArm, PublishedArm, Task, build
from lord_fast.bench.points import Point
from lord_fast.bench.published import PublishedStep
from lord_fast.bench.quality import Plan
from lord_fast.bench.step import random_weights
from lord_fast.cli import main
from lord_fast.config import replace
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources.glyphs import Glyphs
from lord_fast.data.store import ImageStore, as_float
from lord_fast.evaluate.code_sources import LatentCodes
from lord_fast.evaluate.evaluate import evaluate
from lord_fast.evaluate.quick import Figures, measure_quick
from lord_fast.lord import Lord
from lord_fast.machine import Machine
from lord_fast.presets import PRESETS
from lord_fast.train.latent import LatentStage
from tests.test_cli import folder_of

FIGURES = Figures(transfer=1.0, perceptual=None, leakage=0.0, leakage_mlp=0.0, chance=0.0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "vgg16.safetensors"
    save_file(random_weights(), file)
    return file


@pytest.fixture(scope="module")
def rgb_store(tmp_path_factory):
    """A store of 6 classes in 10 typefaces and 2 rotations, 32 px, RGB."""
    out = tmp_path_factory.mktemp("stores") / "rgb"
    pack(Glyphs(32, 6, rotations=(0, 30)), out, PackConfig(size=32, channels=3))
    return out


@pytest.fixture
def task(rgb_store, weights, monkeypatch):
    """A task with a narrow paper preset."""
    narrow = replace(
        PRESETS["paper"], content_dim=8, class_dim=12, adain_dim=16, batch_size=4,
        perceptual_taps=("relu1_2", "relu2_2"),
    )  # fmt: skip
    monkeypatch.setitem(PRESETS, "paper", narrow)
    machine = Machine(torch.device("cpu"), torch.float32, 1)
    return Task(ImageStore(rgb_store), machine, {"unit": weights})


def test_the_published_arm_is_the_published_step(task):
    arm = build(PUBLISHED, task, steps=5, seed=1)
    torch.manual_seed(0)
    losses = [arm.advance()]
    arm.done = 1
    losses.append(arm.advance())

    stage = LatentStage(task.recipe("paper", 5, 1, arms.EAGER), task.store, task.machine)
    step = PublishedStep.like(stage)
    torch.manual_seed(0)
    for number, loss in enumerate(losses):
        ids = stage.sampler.image_ids(number)
        images = as_float(task.store.images(ids))
        assert torch.equal(loss, step(ids, task.store.class_ids[ids], images))
    rates = [group["initial_lr"] for group in arm.published.optimizer.param_groups]
    assert rates == [3e-4, 3e-3]
    ids = torch.arange(3)
    noise = torch.zeros(3, PRESETS["paper"].model.content_dim)
    generated, _ = arm.published.model(ids, task.store.class_ids[ids], noise)
    torch.testing.assert_close(arm.decode(*arm(ids)), generated)
    assert (arm.published.schedule.T_max, arm.published.schedule.eta_min) == (5, 1e-5)


@pytest.mark.parametrize("name", [PUBLISHED, "demo"])
def test_an_arm_decodes_its_codes_to_what_it_learns(task, name):
    arm = build(name, task, steps=30)
    ids = torch.arange(task.store.num_images)
    images = as_float(task.store.images(ids))
    before = (arm.decode(*arm(ids)) - images).abs().mean()
    arm.train(30)
    assert (arm.decode(*arm(ids)) - images).abs().mean() < 0.9 * before
    assert arm.images == 30 * PRESETS[{"published": "paper"}.get(name, name)].batch_size


def test_an_arm_can_be_a_file_of_options(task, tmp_path):
    file = tmp_path / "uniform.yaml"
    file.write_text("preset: demo\ncontent_init: uniform\nsteps: 9\n")
    arm, demo = build(str(file), task, steps=3), build("demo", task, steps=3)
    assert arm.total_steps == 3
    assert arm.stage.config == replace(demo.stage.config, content_init="uniform")
    ids = torch.arange(8)
    assert arm(ids)[0].abs().max() <= 0.05
    assert demo(ids)[0].abs().max() > 0.5


@pytest.mark.parametrize("arm", ["dmo", "missing.yaml"])
def test_an_unknown_arm_is_refused(arm):
    with pytest.raises(ValueError, match=f"--arms {arm}: neither a preset .*demo.* nor a YAML"):
        arms.settings(arm)


def test_a_file_that_sets_the_machine_is_refused(tmp_path):
    file = tmp_path / "some.yaml"
    file.write_text("threads: 3\nextended_from: [5]\n")
    with pytest.raises(ValueError, match=r"some.yaml: sets threads, which is .* use --threads"):
        arms.settings(str(file))
    file.write_text("preset: demo\nextended_from: [5]\n")
    assert arms.settings(str(file)) == PRESETS["demo"]


class FakeClock:
    """A clock that only moves when it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """Steps, building and evaluation take fixed times. The first step takes longer."""
    clock = FakeClock()

    def takes(seconds: float, first: float = 0.0):
        def advance(arm):
            clock.now += seconds + (first if arm.done == 0 else 0.0)

        return advance

    def built(config, store, machine):
        clock.now += 3.0
        return LatentStage(config, store, machine)

    def measured(*_):
        clock.now += 1000.0
        return FIGURES

    monkeypatch.setattr(PublishedArm, "advance", takes(7.0))
    monkeypatch.setattr(PresetArm, "advance", takes(0.5, first=10.0))
    monkeypatch.setattr(arms, "LatentStage", built)
    monkeypatch.setattr(quality, "measure_quick", measured)
    return clock


def test_arms_train_for_the_same_seconds(task, clock):
    task = changed(task, clock=clock)
    plans = quality.plan((PUBLISHED, "demo"), task, seconds=100.0)
    assert {name: each.steps for name, each in plans.items()} == {PUBLISHED: 14, "demo": 174}
    found = list(quality.race(plans, task, None, seed=0, points=4))
    assert [point.arm for point in found] == [PUBLISHED, "demo"] * 4
    for end, step in zip(found[-2:], (7.0, 0.5), strict=True):
        assert end.steps == plans[end.arm].steps
        assert abs(end.seconds - 100.0) <= step
    assert [point.steps for point in found[::2]] == [1, 1, 3, 14]
    assert [point.steps for point in found[1::2]] == [3, 11, 43, 174]
    assert found[5].seconds == 3.0 + 10.0 + 43 * 0.5
    assert points.off_budget(found, 100.0) == []


def test_a_budget_of_too_few_steps_is_refused():
    with pytest.raises(ValueError, match="--seconds 9: published does 3 steps in this time, fewer"):
        quality.check_plans({PUBLISHED: Plan(3, {})}, 9.0, 4)
    quality.check_plans({PUBLISHED: Plan(4, {})}, 9.0, 4)


def test_quick_figures_are_those_of_evaluate(short_run, glyph_store):
    store = ImageStore(glyph_store)
    codes = LatentCodes(Lord.load(short_run, device="cpu", stage="latent"), store)
    full, found = evaluate(codes, store, None), measure_quick(codes, store, None)
    leakage = full["leakage"]["class_from_content"]
    assert found == Figures(
        transfer=full["transfer"]["psnr"], perceptual=None, leakage=leakage["accuracy"],
        leakage_mlp=leakage["mlp_accuracy"], chance=leakage["chance"],
    )  # fmt: skip


def point(arm: str, seed: int, seconds: float, transfer: float, perceptual=None) -> Point:
    figures = Figures(transfer, perceptual, 0.1, 0.2, 0.05)
    return Point(arm, seed, seconds, int(seconds), int(seconds) * 4, figures)


FOUND = [
    point(PUBLISHED, 0, 50, 10.0, 0.6), point("demo", 0, 50, 15.0, 0.5),
    point(PUBLISHED, 0, 100, 14.0, 0.4), point("demo", 0, 120, 16.0, 0.45),
    point(PUBLISHED, 1, 50, 13.0, 0.6), point("demo", 1, 20, 11.0, 0.3),
    point(PUBLISHED, 1, 100, 12.0, 0.4), point("demo", 1, 100, 16.0, 0.3),
]  # fmt: skip


def test_the_time_is_that_of_the_first_point_with_the_published_end():
    assert points.all_times(FOUND) == {
        "transfer": {PUBLISHED: [100, 50], "demo": [50, 100]},
        "perceptual": {PUBLISHED: [100, 100], "demo": [None, 20]},
    }
    rows = points.rows(FOUND)
    assert [(row.name, row.group.split(",")[0]) for row in rows] == [
        (PUBLISHED, "time to the published transfer"), ("demo", "time to the published transfer"),
        (PUBLISHED, "time to the published perceptual"),
    ]  # fmt: skip
    assert "13 dB" in rows[0].group
    assert (rows[1].median_ms, rows[1].min_ms, rows[1].max_ms) == (75e3, 50e3, 100e3)
    assert rows[1].ratio_to_base == 1
    assert points.unreached(FOUND) == ["demo reaches the published perceptual with 1 of 2 seeds"]
    (note,) = points.off_budget(FOUND, 100.0)
    assert note.startswith("demo, seed 0: took 120.0 instead of 100 s")


def test_without_weights_only_transfer_is_compared():
    found = [point(PUBLISHED, 0, 50, 10.0), point("demo", 0, 50, 15.0)]
    assert {row.group for row in points.rows(found)} == {"time to the published transfer, 10 dB"}


def test_bench_quality_writes_its_points(task, tmp_path, monkeypatch, capsys):
    plans = {PUBLISHED: Plan(2, {}), "demo": Plan(4, {"compile": "off"})}
    monkeypatch.setattr(quality, "plan", lambda names, *_: {name: plans[name] for name in names})
    monkeypatch.setattr("lord_fast.evaluate.images.PERCEPTUAL_PAIRS", 1)
    files = {name: tmp_path / f"found.{name}" for name in ("json", "png")}
    command = [
        "bench", "quality", "--store", task.store.path, "--points", 2, "--seeds", 2, "--threads", 1,
        "--perceptual-weights", task.weights["unit"], "--json", files["json"], "--plot",
        files["png"],
    ]  # fmt: skip
    assert main([str(word) for word in command]) == 0
    printed = capsys.readouterr()
    assert "lord-fast bench" in printed.out
    assert "published, seed 1" in printed.err
    found = json.loads(files["json"].read_text())
    assert set(found) == {"machine", "rows", "points"}
    assert [(p["arm"], p["seed"], p["steps"]) for p in found["points"]] == [
        (arm, seed, steps)
        for seed in (0, 1)
        for arm, steps in ((PUBLISHED, 1), ("demo", 1), (PUBLISHED, 2), ("demo", 4))
    ]
    assert [p["images"] for p in found["points"][:2]] == [4, 32]
    assert {row["name"] for row in found["rows"]} >= {PUBLISHED}
    for each in found["points"]:
        assert each["transfer"] > 0
        assert each["perceptual"] > 0
        assert min(each["leakage"], each["leakage_mlp"]) >= 0
        assert each["chance"] == pytest.approx(1 / 6, abs=0.05)
    by_seed = [[p["transfer"] for p in found["points"] if p["seed"] == seed] for seed in (0, 1)]
    assert by_seed[0] != by_seed[1]
    with Image.open(files["png"]) as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize(
    ("channels", "size", "message"),
    [(1, 32, "grey images.*--channels 3"), (3, 128, "images of 128 px.*--size 64")],
)
def test_images_that_do_not_fit_the_published_network_are_refused(channels, size, message):
    with pytest.raises(ValueError, match=f"--store some: {message}"):
        quality.check_published(SimpleNamespace(path="some", channels=channels, size=size))


def test_a_store_without_contents_is_refused(tmp_path):
    store, photos = tmp_path / "store", folder_of(tmp_path / "photos", {"a": 2, "b": 2})
    words = ("--size", "32", "--channels", "3", "--content-labels", "none")
    assert main(["pack", str(photos), str(store), *words]) == 0
    with pytest.raises(ValueError, match="pack again with --content-labels"):
        quality.open_images(store).__enter__()
