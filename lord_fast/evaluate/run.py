"""Evaluates a run. Chooses the codes, the store and the perceptual weights."""

from pathlib import Path

from lord_fast.config import TrainConfig, replace
from lord_fast.data.store import ImageStore, open_store
from lord_fast.evaluate.code_sources import EncoderCodes, LatentCodes
from lord_fast.evaluate.consistency import class_consistency
from lord_fast.evaluate.evaluate import PARTS, evaluate
from lord_fast.evaluate.held_out import leakage_of_held_out
from lord_fast.evaluate.lpips import Lpips
from lord_fast.evaluate.nearest import nearest_training
from lord_fast.evaluate.new_classes import evaluate_new_classes
from lord_fast.evaluate.options import EvaluateConfig
from lord_fast.evaluate.regression import periods
from lord_fast.evaluate.samples import samples
from lord_fast.evaluate.unseen import transfer_to_unseen
from lord_fast.lord import Lord
from lord_fast.model.build import build_vgg
from lord_fast.model.perceptual import VGG16, load_weights
from lord_fast.progress import Progress, silent
from lord_fast.run import checkpoint
from lord_fast.run.config import load_config
from lord_fast.run.metrics import Metrics, save_metrics

FEWEST_FOR_SAMPLES = 20
"""Smallest number of images with which samples are compared."""


def evaluate_run(run: Path, config: EvaluateConfig, progress: Progress = silent) -> Metrics:
    """Measure a run and write its metrics*.json.

    Args:
        run: The run's folder.
        config: Selects what to measure.
        progress: Called with the number of measured parts and of all parts.

    Returns:
        The metrics, with the path of their file.

    Raises:
        ValueError: The run, its store or the perceptual weights do not fit the options.
    """
    measure = {"latent": _latent, "encoder": _encoder, "fit": _fit}[config.codes]
    values, store = measure(run, config, progress)
    if config.codes != "fit":
        progress(PARTS, PARTS)
    values["store"]["path"] = str(store.path.resolve())  # The report shows its images.
    _, data = load_config(run / "config.yaml")
    file = run / file_name(config.codes, None if store.sha256 == data["sha256"] else store)
    return save_metrics(file, values)


def file_name(codes: str, other: ImageStore | None) -> str:
    """Return the name of the file, such as metrics.json or metrics-encoder-STORE.json."""
    parts = ["metrics"]
    if codes != "latent":
        parts.append(codes)
    if other is not None:
        parts.append(other.path.resolve().name)
    return "-".join(parts) + ".json"


def _latent(run: Path, config: EvaluateConfig, progress: Progress) -> tuple[dict, ImageStore]:
    lord = Lord.load(run, stage="latent")
    if config.store is not None:
        other = _any_store(run, lord, config.store)
        if other.sha256 != lord.data["sha256"]:
            return _unseen(run, lord, other, config), other
    store = open_store(run, lord.data, config.store)
    lord.data["store"] = str(store.path.resolve())  # The density reads labels from the store.
    lpips = _lpips(lord, config)
    codes = LatentCodes(lord, store)
    circular = periods(config.circular)
    std = lord.config.model.content_std
    metrics = evaluate(codes, store, lpips, config.seed, progress, circular, std)
    metrics["class_consistency"] = class_consistency(codes, store, config.seed)
    if store.num_images >= FEWEST_FOR_SAMPLES:
        metrics["nearest_training"] = nearest_training(lord, store, config.seed)
    top = _vgg(lord, config, ("pool5",))
    if store.num_images < FEWEST_FOR_SAMPLES:
        metrics["samples"] = {"missing": f"fewer than {FEWEST_FOR_SAMPLES} images"}
    elif top is None:
        metrics["samples"] = {"missing": "needs VGG16 (give --perceptual-weights)"}
    else:
        metrics["samples"] = samples(lord, store, top, config.seed)
    return metrics, store


def _unseen(run: Path, lord: Lord, held_out: ImageStore, config: EvaluateConfig) -> dict:
    """Evaluate stage 1 on unseen combinations of its classes and contents."""
    codes = LatentCodes(lord, open_store(run, lord.data))
    lpips = _lpips(lord, config)
    return {
        **_about("latent", lord, held_out, config.seed),
        "unseen_combinations": transfer_to_unseen(codes, held_out, lpips, config.seed),
    }


def _encoder(run: Path, config: EvaluateConfig, progress: Progress) -> tuple[dict, ImageStore]:
    lord = Lord.load(run, stage="encoders")
    store = _any_store(run, lord, config.store)
    lpips = _lpips(lord, config)
    codes = EncoderCodes(lord, store)
    circular, std = periods(config.circular), lord.config.model.content_std
    metrics = evaluate(codes, store, lpips, config.seed, progress, circular, std)
    if store.sha256 == lord.data["sha256"]:
        metrics["class_consistency"] = class_consistency(codes, store, config.seed)
    else:
        of_leakage, consistency = _by_training(run, codes, config.seed)
        metrics["leakage"]["class_from_content_trained_on_run"] = of_leakage
        metrics["class_consistency"] = consistency
    return metrics, store


def _by_training(run: Path, codes: EncoderCodes, seed: int) -> tuple[dict, dict]:
    """Measure leakage and class consistency of held-out images, learning on the run's store."""
    try:
        trained = open_store(run, codes.lord.data)
    except ValueError:
        why = "the store that the run was trained on is gone or holds other images"
        return {"missing": why}, class_consistency(codes, codes.store, seed)
    leakage = leakage_of_held_out(EncoderCodes(codes.lord, trained), codes, seed)
    return leakage, class_consistency(codes, codes.store, seed, trained)


def _fit(run: Path, config: EvaluateConfig, progress: Progress) -> tuple[dict, ImageStore]:
    latent = Lord.load(run, stage="latent")
    trained = open_store(run, latent.data)
    if config.store is None:
        raise ValueError("--codes fit: give a store of classes held out from training with --store")
    store = _any_store(run, latent, config.store)
    known = sorted(set(store.class_names) & set(trained.class_names))
    if known:
        raise ValueError(f"{store.path}: {known[0]} is a class that {run} was trained on")
    # The fit minimizes the run's own loss, so weights for another input are not used for it.
    own = config.perceptual_input in (None, latent.config.loss.perceptual_input)
    fit_weights = config.perceptual_weights if own else None
    has_encoders = checkpoint.latest(run / "checkpoints", "encoders") is not None
    found = evaluate_new_classes(
        latent, Lord.load(run, stage="encoders") if has_encoders else None, (store, trained),
        _lpips(latent, config), shots=config.shots,
        steps=config.fit_steps, seed=config.seed, perceptual_weights=fit_weights,
        progress=progress,
    )  # fmt: skip
    return {**_about("fit", latent, store, config.seed), "new_classes": found}, store


def _about(codes: str, lord: Lord, store: ImageStore, seed: int) -> dict:
    """Say in metrics.json which codes were measured on which images."""
    return {
        "codes": codes,
        "step": lord.step,
        "seed": seed,
        "store": {"images": store.num_images, "classes": store.num_classes},
        "images": store.num_images,
    }


def _any_store(run: Path, lord: Lord, path: Path | None) -> ImageStore:
    """Open the store at a path, or the store of the run.

    Raises:
        ValueError: The images have another shape than those of the run.
    """
    if path is None:
        return open_store(run, lord.data)
    store = ImageStore(path)
    if (store.size, store.channels) != (lord.data["size"], lord.data["channels"]):
        raise ValueError(
            f"{path}: not the images that {run} was trained on, and of another shape "
            f"({store.size} x {store.size} x {store.channels} instead of "
            f"{lord.data['size']} x {lord.data['size']} x {lord.data['channels']})"
        )
    return store


def _vgg(lord: Lord, config: EvaluateConfig, taps: tuple[str, ...]) -> VGG16 | None:
    """Build VGG16, or return None without weights (see `_weights`)."""
    found = _weights(lord, config)
    return None if found is None else build_vgg(found[0], found[1], taps).to(lord.device)


def _lpips(lord: Lord, config: EvaluateConfig) -> Lpips | None:
    """Build the perceptual distance, or return None without weights (see `_weights`)."""
    found = _weights(lord, config)
    if found is None:
        return None
    wanted = found[0].loss.perceptual_input
    return Lpips(load_weights(found[1], wanted), wanted).to(lord.device)


def _weights(lord: Lord, config: EvaluateConfig) -> tuple[TrainConfig, Path | None] | None:
    """Return the perceptual weights and a configuration with the input that they expect.

    The weights are those of the flag, or those of a run with --loss vgg16. Otherwise the result is
    None.

    Raises:
        ValueError: --perceptual-input is given, but there are no weights.
    """
    if config.perceptual_weights is None and lord.config.loss.loss != "vgg16":
        if config.perceptual_input is not None:
            raise ValueError(
                f"--perceptual-input {config.perceptual_input}: give --perceptual-weights too, "
                f"because the run was trained without weights"
            )
        return None
    weights = config.perceptual_weights or lord.config.loss.perceptual_weights
    wanted = config.perceptual_input or lord.config.loss.perceptual_input
    return replace(lord.config, perceptual_input=wanted), weights
