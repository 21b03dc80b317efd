"""One bench from its options to its rows."""

from collections.abc import Callable

import torch

from lord_fast.bench import adain, data, latent, points, quality, step, train
from lord_fast.bench.arms import PUBLISHED, Task, settings
from lord_fast.bench.curves import draw_curves
from lord_fast.bench.measure import Row, describe, save
from lord_fast.bench.options import BenchConfig, What
from lord_fast.bench.plot import draw
from lord_fast.bench.step import Setting
from lord_fast.evaluate.lpips import Lpips
from lord_fast.machine import Machine, set_up
from lord_fast.model.perceptual import load_weights

Note = Callable[[str], object]


def run_bench(what: What, config: BenchConfig, note: Note = lambda text: None) -> list[Row]:
    """Run a benchmark on this machine. Optionally write the results as JSON and as a plot.

    Args:
        what: step, latent, data, train or quality.
        config: Sizes, threads and files.
        note: Called with each thing that is worth a line while it measures.

    Returns:
        The figures.

    Raises:
        ValueError: The options of quality do not fit the store or the machine.
    """
    machine = set_up(precision=config.precision, threads=config.threads)
    facts = describe(machine)
    for name, value in facts.items():
        note(f"{name}: {value}")
    title = f"lord-fast bench {what}, {facts['processor']}, {facts['device']}"
    if what == "quality":
        return _quality(machine, config, note, title)
    shape = {"batch": config.batch_size, "size": config.size, "adain_dim": config.adain_dim}
    if what == "step":
        # While the memory is free.
        sized = _scaling(shape, note, config.threads) if config.scaling else []
        with step.setting(machine, **shape) as found:
            rows = _step(found, note) + sized
        if machine.device.type == "cpu":  # the tests in tests/gate count its accesses on CUDA.
            rows += adain.adain_rows(config.adain_dim, config.size)
    elif what == "train":
        with step.setting(machine, **shape) as found:
            rows = _train(found, note, machine.dtype, config.steps)
    else:
        rows = {"latent": _latent, "data": _data}[what](machine, note)
    if config.json is not None:
        save(config.json, rows, machine)
    if config.plot is not None:
        draw(config.plot, rows, title)
    return rows


def _latent(machine: Machine, note: Note) -> list[Row]:
    note(f"agrees with dense Adam to {latent.agreement(machine.device):.1e} of the way")
    return [
        *latent.noise_rows(machine.device),
        *latent.scaling_rows(machine.device),
        *latent.step_rows(machine.device),
    ]


def _data(machine: Machine, note: Note) -> list[Row]:
    rows = data.all_rows(machine)
    for row in rows:
        if "B" in row.params and "training" not in row.group:
            note(f"{row.group}: {row.name}: {row.params['B'] / row.median_ms * 1e3:,.0f} images/s")
        elif row.name == "waiting for images":
            note(f"{row.group}: idle {100 / row.ratio_to_base:.2f} % of the step")
    return rows


def _step(found: Setting, note: Note) -> list[Row]:
    for name, operations in step.operations(found).items():
        note(f"operations: {name}: {operations:.1f} GFLOP an image")
    steps = step.ladder(found)
    calls = "kernels launched" if found.device.type == "cuda" else "operators called"
    for name, count in step.launches(found, steps).items():
        note(f"{calls} a step: {name}: {count:,}")
    for name, share in step.convolution_shares(found, steps).items():
        note(f"convolutions: {name}: {100 * share:.0f} % of the step")
    rows = step.step_rows(found, steps)
    for row in rows:
        note(f"{row.group}: {row.name}: {row.params['B'] / row.median_ms * 1e3:.1f} images/s")
    fastest = min(row.median_ms for row in rows if "processor" not in row.group)
    saved, share = step.save_row(found, fastest)
    note(f"saves: {saved.median_ms:.0f} ms each, {100 * share:.2f} % of the fastest training")
    return [*rows, saved]


def _scaling(shape: dict[str, int], note: Note, threads: int) -> list[Row]:
    rows = []
    for axis, sizes in (("images", step.SCALING_IMAGES), ("classes", step.SCALING_CLASSES)):
        for row in step.scaling_alone(shape, threads, axis, sizes):
            note(f"{row.group}: {row.name}: {row.params['memory_mb']:,} MiB")
            rows.append(row)
    return rows


def _train(found: Setting, note: Note, dtype: torch.dtype, steps: int) -> list[Row]:
    rows, differences = train.train_rows(found, dtype, steps)
    for name, (largest, last) in differences.items():
        note(
            f"{rows[0].group}: {name}: off the published losses by {largest:.1e} at most, the mean "
            f"of the last 50 {last:.1e}"
        )
    return rows


def _quality(machine: Machine, config: BenchConfig, note: Note, title: str) -> list[Row]:
    weights = {"unit": config.perceptual_weights, "caffe": config.caffe_weights}
    names = list(dict.fromkeys((PUBLISHED, *config.arms)))
    for arm in config.arms:
        settings(arm)  # Refuse a wrong one before anything is read.
    found: list[points.Point] = []
    with quality.open_images(config.store) as store:
        wanted = "unit" if config.published == "pytorch" else "caffe"
        lpips = Lpips(load_weights(weights[wanted], wanted), wanted).to(machine.device)
        task = Task(store, machine, weights, config.published)
        plans = quality.plan(names, task, config.seconds)
        for name, planned in plans.items():
            note(f"{name}: {planned.steps:,} steps in {config.seconds:g} s")
        quality.check_plans(plans, config.seconds, config.points)
        for seed in range(config.seeds):
            for point in quality.race(plans, task, lpips, seed, config.points):
                note(str(point))
                found.append(point)
    for line in (*points.unreached(found), *points.off_budget(found, config.seconds)):
        note(line)
    rows = points.rows(found)
    if config.json is not None:
        save(config.json, rows, machine, points=[point.flat() for point in found])
    if config.plot is not None:
        draw_curves(config.plot, found, title)
    return rows
