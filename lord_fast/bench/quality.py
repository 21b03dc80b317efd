"""Compares the published recipe with lord-fast's presets after the same seconds of training.

The number of steps of an arm, and with it its learning-rate schedule, follows from a few measured
steps.
"""

import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from lord_fast.bench.arms import Arm, PresetArm, Task, build
from lord_fast.bench.points import Point
from lord_fast.config import Switch
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources.glyphs import Glyphs
from lord_fast.data.store import ImageStore
from lord_fast.evaluate.lpips import Lpips
from lord_fast.evaluate.quick import check_measurable, measure_quick
from lord_fast.model.generator import num_adain_layers
from lord_fast.train.capture import COMPARED, WARM_UP

GLYPH_SIZE = 32
TURNS = 3
"""Number of times that the steps of an arm are timed to find their number."""
SHARE_OF_TURN = 0.005
"""Fraction of the budget that these steps take each time."""
EARLIEST = 1 / 64
"""Fraction of an arm's steps at its first point."""


@dataclass(frozen=True)
class Plan:
    """The length of an arm.

    Attributes:
        steps: Number of steps that take the budget.
        form: The form in which the steps were measured, see `PresetArm`.
    """

    steps: int
    form: Mapping[str, Switch]


@contextmanager
def open_images(path: Path | None) -> Iterator[ImageStore]:
    """Yield the store at a path, or a store of glyphs of 32 px.

    Raises:
        ValueError: The published network does not fit the images, or no two classes share a content
            label.
    """
    with tempfile.TemporaryDirectory() as folder:
        if path is None:
            path = Path(folder) / "glyphs"
            pack(Glyphs(GLYPH_SIZE), path, PackConfig(size=GLYPH_SIZE, channels=3))
        store = ImageStore(path)
        check_published(store)
        check_measurable(store)
        yield store


def check_published(store: ImageStore) -> None:
    """Check that the published network fits the images.

    Raises:
        ValueError: The images are grey, or larger than 64 px.
    """
    if store.channels != 3:
        raise ValueError(
            f"--store {store.path}: grey images, and the published code takes RGB; pack again with "
            f"--channels 3"
        )
    if num_adain_layers(store.size) != 4:
        raise ValueError(
            f"--store {store.path}: images of {store.size} px, and the published network takes at "
            f"most 64 px; pack again with --size 64"
        )


def plan(names: Sequence[str], task: Task, seconds: float) -> dict[str, Plan]:
    """Find the number of steps that each arm does in the budget. Arms take turns.

    Args:
        names: The arms.
        task: The data and the machine.
        seconds: The budget of each arm.

    Returns:
        Arm -> its plan.
    """
    with ExitStack() as stack:
        probes = {name: _warm(name, task, seconds, stack) for name in names}
        before = {name: probe.seconds for name, probe in probes.items()}
        warm = {name: probe.done for name, probe in probes.items()}
        times: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(TURNS):
            for name, probe in probes.items():
                count = max(1, round(SHARE_OF_TURN * probe.total_steps))
                times[name].append(_time_of_a_step(probe, count))
        return {
            name: Plan(
                max(1, warm[name] + round((seconds - before[name]) / statistics.median(of_arm))),
                _form(probes[name]),
            )
            for name, of_arm in times.items()
        }


def _warm(name: str, task: Task, seconds: float, stack: ExitStack) -> Arm:
    """Build an arm of about the planned length, on which its form depends, and warm it up."""
    warm = WARM_UP + COMPARED if task.machine.device.type == "cuda" else 1
    rough = build(name, task, warm + 1)
    with closing(rough.stage):
        rough.train(warm)
        steps = round(seconds / _time_of_a_step(rough))
    probe = build(name, task, max(warm + TURNS, steps))
    stack.enter_context(closing(probe.stage))
    probe.train(warm)
    return probe


def _time_of_a_step(arm: Arm, count: int = 1) -> float:
    start = arm.seconds
    arm.train(arm.done + count)
    return (arm.seconds - start) / count


def _form(arm: Arm) -> Mapping[str, Switch]:
    return arm.stage.form.recorded() if isinstance(arm, PresetArm) else {}


def check_plans(plans: Mapping[str, Plan], seconds: float, points: int) -> None:
    """Check that every arm does at least as many steps as there are measurements.

    Raises:
        ValueError: The budget is too short.
    """
    for name, planned in plans.items():
        if planned.steps < points:
            raise ValueError(
                f"--seconds {seconds:g}: {name} does {planned.steps} steps in this time, fewer "
                f"than --points {points}; give more seconds or fewer points"
            )


def race(
    plans: Mapping[str, Plan], task: Task, lpips: Lpips | None, seed: int, points: int
) -> Iterator[Point]:
    """Train all arms and measure them from time to time. Arms take turns.

    The numbers of steps at which an arm is measured form a geometric sequence, because quality
    changes most at first.

    Args:
        plans: Arm -> its plan.
        task: The data and the machine.
        lpips: The perceptual distance, or None.
        seed: Seed of the trainings. All measurements use the same images and pairs.
        points: Number of measurements of each arm, at least 2.
    """
    torch.manual_seed(seed)  # For the noise of the published code.
    with ExitStack() as stack:
        arms = {
            name: build(name, task, each.steps, seed, each.form) for name, each in plans.items()
        }
        for arm in arms.values():
            stack.enter_context(closing(arm.stage))
        for turn in range(points):
            share = EARLIEST ** (1 - turn / (points - 1))
            for name, arm in arms.items():
                arm.train(max(1, round(share * arm.total_steps)))
                figures = measure_quick(arm, task.store, lpips)
                yield Point(name, seed, arm.seconds, arm.done, arm.images, figures)
