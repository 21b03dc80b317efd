"""lord-fast evaluate."""

import dataclasses
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lord_fast.build import build_vgg
from lord_fast.config import EvaluateConfig, load_config
from lord_fast.data.store import ImageStore
from lord_fast.evaluate.codes import EncoderCodes, LatentCodes
from lord_fast.evaluate.evaluate import evaluate
from lord_fast.evaluate.held_out import leakage_of_held_out
from lord_fast.evaluate.new_classes import evaluate_new_classes
from lord_fast.evaluate.samples import samples
from lord_fast.figures import rows, title
from lord_fast.lord import Lord
from lord_fast.model.perceptual import VGG16
from lord_fast.run import open_store
from lord_fast.train import checkpoint

FEWEST_FOR_SAMPLES = 20
"""Images that a set of samples needs to be compared with."""


def run(run_path: Path, config: EvaluateConfig) -> dict:
    """Measure a run, print a table and write its metrics*.json."""
    measure = {"latent": _latent, "encoder": _encoder, "fit": _fit}[config.codes]
    metrics, store = measure(run_path, config)
    _, data = load_config(run_path / "config.yaml")
    file = run_path / file_name(config.codes, None if store.sha256 == data["sha256"] else store)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(metrics, indent=1) + "\n")
    partial.replace(file)
    table = Table("what", "figure", "chance or baseline", title=title(metrics))
    for row in rows(metrics):
        table.add_row(*row)
    Console().print(table)
    Console(stderr=True, soft_wrap=True).print(f"all figures: {file}")
    return metrics


def file_name(codes: str, other: ImageStore | None) -> str:
    """metrics.json for the codes of training; metrics-CODES[-STORE].json for all else."""
    parts = ["metrics"]
    if codes != "latent":
        parts.append(codes)
    if other is not None:
        parts.append(other.path.resolve().name)
    return "-".join(parts) + ".json"


def _latent(run_path: Path, config: EvaluateConfig) -> tuple[dict, ImageStore]:
    lord = Lord.load(run_path, codes="latent")
    store = open_store(run_path, lord.data, config.store)
    vgg = _vgg(lord, config, lord.config.perceptual_taps)
    metrics = evaluate(LatentCodes(lord, store), store, vgg, config.seed)
    top = _vgg(lord, config, ("pool5",))
    if store.num_images < FEWEST_FOR_SAMPLES:
        metrics["samples"] = {"missing": f"fewer than {FEWEST_FOR_SAMPLES} images"}
    elif top is None:
        metrics["samples"] = {"missing": "needs VGG16: give --perceptual-weights"}
    else:
        metrics["samples"] = samples(lord, store, top, config.seed)
    return metrics, store


def _encoder(run_path: Path, config: EvaluateConfig) -> tuple[dict, ImageStore]:
    lord = Lord.load(run_path, codes="encoder")
    store = _any_store(run_path, lord, config.store)
    vgg = _vgg(lord, config, lord.config.perceptual_taps)
    codes = EncoderCodes(lord, store)
    metrics = evaluate(codes, store, vgg, config.seed)
    if store.sha256 != lord.data["sha256"]:
        found = _leakage_by_training(run_path, codes, config.seed)
        metrics["leakage"]["class_from_content_trained_on_run"] = found
    return metrics, store


def _leakage_by_training(run_path: Path, codes: EncoderCodes, seed: int) -> dict:
    try:
        trained = open_store(run_path, codes.lord.data)
    except ValueError:
        return {"missing": "the store that the run was trained on is gone or holds other images"}
    return leakage_of_held_out(EncoderCodes(codes.lord, trained), codes, seed)


def _fit(run_path: Path, config: EvaluateConfig) -> tuple[dict, ImageStore]:
    for flag, value in (("--shots", config.shots), ("--fit-steps", config.fit_steps)):
        if value < 1:
            raise ValueError(f"{flag} {value}: must be positive")
    latent = Lord.load(run_path, codes="latent")
    trained = open_store(run_path, latent.data)
    if config.store is None:
        raise ValueError("--codes fit: say with --store which classes, unseen in training")
    store = _any_store(run_path, latent, config.store)
    known = sorted(set(store.class_names) & set(trained.class_names))
    if known:
        raise ValueError(f"{store.path}: {known[0]} is a class that {run_path} was trained on")
    # The fit minimizes the run's own loss: weights of another convention only measure.
    own = config.perceptual_input in (None, latent.config.perceptual_input)
    fit_weights = config.perceptual_weights if own else None
    has_encoders = checkpoint.latest(run_path / "checkpoints", "amortized") is not None
    found = evaluate_new_classes(
        latent, Lord.load(run_path, codes="encoder") if has_encoders else None, (store, trained),
        _vgg(latent, config, latent.config.perceptual_taps), shots=config.shots,
        steps=config.fit_steps, seed=config.seed, perceptual_weights=fit_weights,
    )  # fmt: skip
    return {
        "codes": "fit",
        "step": latent.step,
        "seed": config.seed,
        "store": {"images": store.num_images, "classes": store.num_classes},
        "images": store.num_images,
        "new_classes": found,
    }, store


def _any_store(run_path: Path, lord: Lord, path: Path | None) -> ImageStore:
    """The store named, or that of the run.

    Raises:
        ValueError: its images have another shape than the run's.
    """
    if path is None:
        return open_store(run_path, lord.data)
    store = ImageStore(path)
    if (store.size, store.channels) != (lord.data["size"], lord.data["channels"]):
        raise ValueError(
            f"{path}: images of {store.size} x {store.size} x {store.channels}, {run_path} was "
            f"trained on {lord.data['size']} x {lord.data['size']} x {lord.data['channels']}"
        )
    return store


def _vgg(lord: Lord, config: EvaluateConfig, taps: tuple[str, ...]) -> VGG16 | None:
    """Features, where there are weights: those named, or those of a run that was trained so.

    Raises:
        ValueError: there are none, and --perceptual-input says what they are like.
    """
    if config.perceptual_weights is None and lord.config.loss != "vgg16":
        if config.perceptual_input is not None:
            raise ValueError(
                f"--perceptual-input {config.perceptual_input}: give the --perceptual-weights that "
                f"it belongs to; the run was trained without"
            )
        return None
    weights = config.perceptual_weights or lord.config.perceptual_weights
    wanted = config.perceptual_input or lord.config.perceptual_input
    features = dataclasses.replace(lord.config, perceptual_input=wanted)
    return build_vgg(features, weights, taps).to(lord.device)
