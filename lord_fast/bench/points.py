"""The points of the curves of `lord-fast bench quality`, and when an arm reaches a quality."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from lord_fast.bench.arms import PUBLISHED
from lord_fast.bench.measure import Case, Row, rows_of
from lord_fast.evaluate.quick import Figures

UNITS = {"transfer": "dB", "perceptual": "LPIPS"}
"""The figures that an arm has to reach, with their units. Higher transfer is better."""
TOLERANCE = 0.1
"""Relative difference between an arm's seconds and the budget, above which a note is printed."""


@dataclass(frozen=True)
class Point:
    """The figures of an arm at one time.

    Attributes:
        arm: `published`, a preset or a file.
        seed: Seed of the training.
        seconds: Time of training so far, without evaluation.
        steps: Number of finished steps.
        images: Number of images seen. An image counts each time that it is seen.
        figures: Transfer, leakage and perceptual distance.
    """

    arm: str
    seed: int
    seconds: float
    steps: int
    images: int
    figures: Figures

    def flat(self) -> dict:
        """Return all values as one object for JSON."""
        values = asdict(self)
        return {**values, **values.pop("figures")}

    def __str__(self) -> str:
        figures = self.figures
        distance = "" if figures.perceptual is None else f", LPIPS {figures.perceptual:.3f}"
        return (
            f"{self.arm}, seed {self.seed}, {self.seconds:.1f} s, {self.steps:,} steps, "
            f"{self.images:,} images: transfer {figures.transfer:.2f} dB{distance}, leakage "
            f"{figures.leakage:.3f} (linear) {figures.leakage_mlp:.3f} (MLP), chance "
            f"{figures.chance:.3f}"
        )


Points = Sequence[Point]
"""Points in the order of training. Those of a seed follow each other."""


def rows(points: Points) -> list[Row]:
    """Return when each arm first has the quality that the published arm has at its end.

    The time is that of the first point with this quality. An arm that lacks it with one of the
    seeds has no row.
    """
    found = []
    for figure, times in all_times(points).items():
        every = {
            name: [one for one in seconds if one is not None]
            for name, seconds in times.items()
            if None not in seconds
        }
        cases = [_case(points, figure, name) for name in every]
        found += rows_of(cases, list(every.values()))
    return found


def unreached(points: Points) -> list[str]:
    """Say which arms have no row in `rows`."""
    return [
        f"{name} reaches the published {figure} with {len(seconds) - seconds.count(None)} of "
        f"{len(seconds)} seeds"
        for figure, times in all_times(points).items()
        for name, seconds in times.items()
        if None in seconds
    ]


def off_budget(points: Points, budget: float) -> list[str]:
    """Say which arms took a time that differs much from the budget in seconds."""
    return [
        f"{last.arm}, seed {last.seed}: took {last.seconds:.1f} instead of {budget:g} s, because "
        f"its steps changed their speed; repeat on a machine at rest"
        for last in ends(points)
        if abs(last.seconds - budget) > TOLERANCE * budget
    ]


def ends(points: Points) -> list[Point]:
    """Return the last point of each arm and seed."""
    return list({(point.arm, point.seed): point for point in points}.values())


def all_times(points: Points) -> dict[str, dict[str, list[float | None]]]:
    """Return figure -> arm -> the seconds of each seed, or None where it is not reached.

    Figures that were not measured are left out.
    """
    found: dict[str, dict[str, list[float | None]]] = {}
    for end in ends(points):
        for figure in UNITS:
            if getattr(end.figures, figure) is not None:
                seconds = found.setdefault(figure, {}).setdefault(end.arm, [])
                seconds.append(_time(points, end, figure))
    return found


def _time(points: Points, end: Point, figure: str) -> float | None:
    sign = 1 if figure == "transfer" else -1
    (published,) = (e for e in ends(points) if (e.arm, e.seed) == (PUBLISHED, end.seed))
    wanted = sign * getattr(published.figures, figure)
    mine = [point for point in points if (point.arm, point.seed) == (end.arm, end.seed)]
    return next((p.seconds for p in mine if sign * getattr(p.figures, figure) >= wanted), None)


def _case(points: Points, figure: str, name: str) -> Case:
    published = [end for end in ends(points) if end.arm == PUBLISHED]
    wanted = statistics.fmean(getattr(end.figures, figure) for end in published)
    group = f"time to the published {figure}, {wanted:.3g} {UNITS[figure]}"
    last = next(end for end in ends(points) if end.arm == name)
    params = {"steps": last.steps, "images": last.images, "seeds": len(published)}
    return Case(group, name, params, lambda: lambda: None)
