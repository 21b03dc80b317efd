"""Reads and writes a run's metrics*.json, and formats them for the terminal and the report."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lord_fast.atomic import atomic_write
from lord_fast.run.field_rows import consistency_rows, field_rows
from lord_fast.run.verdict import PROBE_NAMES, Card, judge
from lord_fast.seal import seal, unseal

Row = tuple[str, str, str]
"""A metric's name, its value with the 95 % interval, and its chance level or baseline."""


@dataclass(frozen=True)
class Metrics:
    """The content of a metrics*.json file.

    Attributes:
        file: Path of the file.
        values: Content of the file.
        title: Describes the codes and the images that were evaluated.
        rows: The metrics in readable form.
        cards: The verdict, see `lord_fast.run.verdict`.
    """

    file: Path
    values: dict[str, Any]
    title: str
    rows: list[Row]
    cards: list[Card]


def save_metrics(file: Path, values: dict[str, Any]) -> Metrics:
    """Write a metrics*.json."""
    atomic_write(file, json.dumps(seal(values), indent=1) + "\n")
    return _of(file, values)


def read_metrics(run: Path) -> list[Metrics]:
    """Read all metrics of a run, metrics.json first.

    Raises:
        ValueError: A file is damaged or incomplete.
    """
    files = sorted(run.glob("metrics*.json"), key=lambda file: (len(file.stem), file.stem))
    found = []
    for file in files:
        try:
            values = unseal(json.loads(file.read_text()), file)
            found.append(_of(file, values))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{file}: damaged, or of another version of lord-fast ({error!r}); remove it, or "
                f"measure again with lord-fast evaluate"
            ) from error
    return found


def _of(file: Path, values: dict[str, Any]) -> Metrics:
    return Metrics(file, values, title(values), rows(values), judge(values))


def title(metrics: dict) -> str:
    """Describe the codes and the images that were evaluated."""
    return (
        f"{metrics['codes']} codes, step {metrics['step']}, {metrics['images']} images, "
        f"seed {metrics['seed']}"
    )


def rows(metrics: dict) -> list[Row]:
    """Format every metric together with its chance level or baseline.

    Raises:
        ValueError: Another version of lord-fast wrote the metrics.
    """
    if metrics.get("new_classes"):
        return _new_classes(metrics["new_classes"])
    if "unseen_combinations" in metrics:
        return _transfer(metrics["unseen_combinations"], "unseen combinations")
    if "probed" not in metrics:
        raise ValueError(
            f"metrics of {metrics['codes']} codes, measured by another version of lord-fast: "
            f"repeat lord-fast evaluate"
        )
    return [
        _reconstruction(metrics["reconstruction"]),
        *probe_rows(metrics),
        *_content_labels(metrics.get("content_labels")),
        *_transfer(metrics["transfer"], "transfer"),
        *consistency_rows(metrics.get("class_consistency")),
        *_samples(metrics.get("samples")),
        *_nearest(metrics.get("nearest_training")),
    ]


def _reconstruction(found: dict) -> Row:
    mean = found.get("class_mean_psnr")
    return "reconstruction", _images(found), "" if mean is None else f"class mean {mean:.2f} dB"


def probe_rows(metrics: dict) -> list[Row]:
    """Format all metrics of codes together with their chance levels and controls."""
    probed = metrics["probed"]
    alone = probed["classes_of_one_image"]
    of = f"{probed['images']} images of {probed['classes']} classes"
    found = [("probes", of, f"left out, with one image each: {alone}" if alone else "")]
    for direction in ("leakage", "informativeness"):
        for name, results in metrics[direction].items():
            if name == "missing":
                found.append((direction, "not measured", results))
                continue
            factors = results if name.startswith("content_from") else {"": results}
            for factor, result in factors.items():
                label = f"{direction}: {name.replace('_', ' ')} {factor}".strip()
                found.append((label, *_probe_cells(result)))
    return [*found, *_rate(metrics.get("content_rate")), *field_rows(metrics)]


def _rate(found: dict | None) -> list[Row]:
    if found is None:
        return []
    needed = f"{found['needed']:.1f} bits tell {found['what']} apart"
    return [("content code carries at most", f"{found['bits']:.1f} bits", needed)]


def _content_labels(found: dict | None) -> list[Row]:
    """Return a warning if content labels do not seem to mean the same in every class."""
    if found is None or found["shared"]:
        return []
    figure = f"correlation {found['similarity']:.3f} above shuffled labels, p {found['p']:.3f}"
    why = "warning: labels seem to differ between classes, so transfer is not reliable"
    return [("content labels", figure, why)]


def _transfer(transfer: dict | None, name: str) -> list[Row]:
    if transfer is None:
        why = "no content label is shared by two classes of two images"
        return [(name, "not measured", why)]
    if "missing" in transfer:
        return [(name, "not measured", transfer["missing"])]
    baselines = (
        f"class mean {transfer['class_mean_psnr']:.2f} dB, "
        f"content image unchanged {transfer['copy_content_psnr']:.2f} dB"
    )
    rows = [(f"{name} ({transfer['pairs']} pairs)", _images(transfer), baselines)]
    for key in ("additive", "retrieval"):
        if key in transfer.get("baselines", {}):
            rows.append((f"{name}: {key} baseline", _images(transfer["baselines"][key]), ""))
    return rows


def _samples(samples: dict | None) -> list[Row]:
    if samples is None:
        return []
    if "missing" in samples:
        return [("samples", "not measured", samples["missing"])]
    return [
        (
            f"samples: {name.replace('_', ' ')} ({samples['images']} images)",
            _quality(samples[name]),
            f"real images: {_quality(samples['real'])}",
        )
        for name in ("mixture", "training", "mixture_new_classes")
    ]


def _nearest(found: dict | None) -> list[Row]:
    """Format the distances of samples to training. Samples that are much nearer are memorized."""
    if found is None:
        return []
    return [
        (
            f"samples: distance to the nearest training {of} ({found['samples']} samples)",
            f"median {found[of]['median']:.3f}, {found[of]['nearer']:.1%} nearer than 95 % of real",
            f"real ones to each other: median {found[of]['real_median']:.3f}",
        )
        for of in ("code", "image")
    ]


def _quality(found: dict) -> str:
    low, high = found["interval"]
    return (
        f"kernel distance {found['kernel_distance']:.4f} [{low:.4f}, {high:.4f}], "
        f"{_frechet(found)}"
        f"precision {found['precision']:.2f}, recall {found['recall']:.2f}"
    )


def _frechet(found: dict) -> str:
    distance = found.get("frechet_distance_vgg16")
    return "" if distance is None else f"Fréchet distance (VGG16) {distance:.3f}, "


def _new_classes(found: dict) -> list[Row]:
    baselines = (
        f"mean of the shots {found['shots_mean_psnr']:.2f} dB, "
        f"content image unchanged {found['copy_content_psnr']:.2f} dB"
    )
    what = (
        f"class fitted to {found['shots']} images ({found['classes']} classes, "
        f"{found['pairs']} pairs)"
    )
    rows = [(what, _images(found), baselines)]
    if found["encoder_one_image"] is not None:
        rows.append(("class encoder, one image", _images(found["encoder_one_image"]), baselines))
    if found.get("encoder_shots_mean") is not None:
        what = f"class encoder, mean of the {found['shots']} images"
        rows.append((what, _images(found["encoder_shots_mean"]), baselines))
    return rows


def _images(figures: dict) -> str:
    low, high = figures["interval"]["psnr"]
    perceptual = figures["perceptual"]
    shown = "" if perceptual is None else f", perceptual {perceptual:.3f}"
    decibels = f"{figures['psnr']:.2f} [{low:.2f}, {high:.2f}] dB"
    return (
        f"{decibels} ({figures['psnr_per_image']:.2f} an image), SSIM {figures['ssim']:.3f}{shown}"
    )


def _probe_cells(result: dict | None) -> tuple[str, str]:
    if result is None:
        return "not measured", "too few images of a label"
    if "missing" in result:
        return "not measured", result["missing"]
    figures = []
    for of, label in PROBE_NAMES.items():
        if of in result:
            low, high = result[f"{of}_interval"]
            figures.append(f"{result[of]:.3f} [{low:.3f}, {high:.3f}] ({label})")
    images = f"{result['trained_on']} images to train on, {result['scored_on']} scored"
    chance = f"{result['chance']:.3f} ({images}, {result['split']})"
    return ", ".join(figures), "; ".join((chance, *_controls(result)))


def _controls(result: dict) -> list[str]:
    """Format the accuracies of the same probes on the control codes."""
    found = []
    for name, read in result.get("controls", {}).items():
        figures = ", ".join(f"{read[of]:.3f}" for of in PROBE_NAMES)
        oracle = f" (an oracle {read['oracle']:.3f})" if "oracle" in read else ""
        found.append(f"{name.replace('_', ' ')} {figures}{oracle}")
    if result.get("blind"):
        found.append(f"blind: {', '.join(PROBE_NAMES[of] for of in result['blind'])}")
    return found
