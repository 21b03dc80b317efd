"""Summarizes the metrics of runs that differ only in their seed."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lord_fast.atomic import atomic_write
from lord_fast.run.metrics import read_metrics
from lord_fast.seal import seal

FILE = "seeds.json"
ABOUT = ("step", "seed", "images", "store", "probed")
"""Keys of a metrics*.json that describe the measurement instead of its result."""
SHOWN = (
    "reconstruction.psnr",
    "leakage.class_from_content.accuracy",
    "leakage.class_from_content.mlp_accuracy",
    "leakage.class_from_content.chance",
    "leakage.class_from_content_trained_on_run.accuracy",
    "leakage.class_from_content_trained_on_run.mlp_accuracy",
    "leakage.class_from_content_trained_on_run.chance",
    "transfer.psnr",
    "transfer.perceptual",
    "unseen_combinations.psnr",
    "unseen_combinations.perceptual",
)
"""The metrics that the terminal shows."""

Summary = dict[str, dict[str, dict[str, Any]]]
"""File -> metric -> `mean`, `std` and `values`."""


def folders(run: Path, seeds: int) -> list[Path]:
    """Return the folder of each seed's run."""
    return [run / f"seed-{seed}" for seed in range(seeds)]


def save_seeds(run: Path, seeds: int, files: Sequence[str]) -> Summary:
    """Summarize the metrics of all seeds and write them to RUN/seeds.json.

    Args:
        run: The folder that holds the runs of all seeds.
        seeds: Number of seeds, at least 2.
        files: Names of the files of metrics that every run has.

    Returns:
        Each metric's mean, standard deviation and values in the order of the seeds.

    Raises:
        ValueError: A file is damaged.
    """
    runs = folders(run, seeds)
    metrics = [{one.file.name: one.values for one in read_metrics(each)} for each in runs]
    found = {name: summarize([of_run[name] for of_run in metrics]) for name in files}
    content = {"runs": [each.name for each in runs], "metrics": found}
    atomic_write(run / FILE, json.dumps(seal(content), indent=1) + "\n")
    return found


def summarize(metrics: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Summarize several contents of the same metrics*.json.

    Args:
        metrics: The contents, at least 2.

    Returns:
        Metric, such as `transfer.psnr` -> its `mean`, its sample standard deviation `std` and its
        `values`. A metric that one of the contents lacks is left out.
    """
    each = [scalars(values) for values in metrics]
    found = {}
    for name in each[0]:
        if all(name in one for one in each):
            values = [one[name] for one in each]
            mean, std = statistics.fmean(values), statistics.stdev(values)
            found[name] = {"mean": mean, "std": std, "values": values}
    return found


def scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return every number of a metrics*.json by the keys that lead to it, joined by dots.

    Intervals are lists and are left out, and so are the keys of `ABOUT`.
    """
    return _numbers({name: value for name, value in metrics.items() if name not in ABOUT}, "")


def _numbers(values: Mapping[str, Any], before: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _numbers(value, f"{before}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[before + name] = value
    return found
