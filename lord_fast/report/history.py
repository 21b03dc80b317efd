"""The commands that made a run, as far as its files tell."""

import shlex
from pathlib import Path

from lord_fast.config import (
    PRESETS,
    EvaluateConfig,
    LoopConfig,
    PackConfig,
    encoder_defaults,
    load_encoder_config,
)
from lord_fast.data.glyphs import TYPEFACE_SETS
from lord_fast.data.store import ImageStore
from lord_fast.data.writer import read_manifest
from lord_fast.lord import Lord
from lord_fast.run import Metrics, crop_flag


def commands(run: Path, lord: Lord, store: ImageStore, measured: list[Metrics]) -> list[str]:
    """Lines for a shell; a comment stands where something is not known.

    Args:
        run: The run's folder.
        lord: Its stage 1.
        store: The images that it was trained on.
        measured: Its metrics.
    """
    preset = lord.config.preset
    train = ["lord-fast", "train", str(store.path), "--run", str(run), "--preset", preset]
    lines = [*_images(store), shlex.join(train + _flags(lord.config, PRESETS[preset]))]
    if (run / "encoders.yaml").exists():
        config = load_encoder_config(run / "encoders.yaml")
        train = ["lord-fast", "train-encoders", str(run)]
        lines.append(shlex.join(train + _flags(config, encoder_defaults(lord.config))))
    lines += [_evaluate(run, metrics) for metrics in measured]
    moved = str(store.path.resolve()) != lord.data["store"]
    report = ["lord-fast", "report", str(run), *(["--store", str(store.path)] if moved else [])]
    return [*lines, shlex.join(report)]


def _images(store: ImageStore) -> list[str]:
    """How the store was made; its manifest keeps neither --min-class-size nor the parts' sizes."""
    manifest = read_manifest(store.path)
    part = manifest.get("split_of")
    name = str(store.path) if part is None else "STORE"
    flags = _pack_flags(manifest, store.num_classes if part is None else None)
    source = manifest["source"]
    pack = shlex.join(["lord-fast", "pack", source.get("path", source["format"]), name, *flags])
    if part is None:
        return [pack]
    split = f"lord-fast split STORE TRAIN TEST --seed {part['seed']}"
    where = shlex.quote(str(store.path))
    return [f"# {pack}", f"# {split}  # {where} is one of the two; how much is held out: not kept"]


def _pack_flags(manifest: dict, classes: int | None) -> list[str]:
    """The flags of pack; `classes` is the number of glyphs, where it is known."""
    source, default = manifest["source"], PackConfig()
    known = {name: source.get(name) for name in ("content_pattern", "class_factors", "every")}
    known |= {"size": manifest["size"], "max_bad": manifest["left_out"]}
    if source["format"] == "glyphs":
        known |= {"rotations": source["rotations"], "scales": source["scales"]}
        known |= {"classes": classes}
        if tuple(source["fonts"]) not in TYPEFACE_SETS:
            known |= {"typefaces": list(source["fonts"])}
    else:
        crop = manifest.get("crop")
        known |= {"format": source["format"], "channels": manifest["channels"]}
        known |= {"crop": crop_flag(crop) if crop else "none"}
        known |= {"decoder": manifest["decoder"]["name"]}
        known |= {"encoded": manifest.get("storage") == "encoded"}
    return [
        word
        for name, value in known.items()
        if value is not None and not _same(value, getattr(default, name))
        for word in _flag(name, value)
    ]


def _evaluate(run: Path, metrics: Metrics) -> str:
    """What measured a file of metrics; of another store it keeps the name and not the place."""
    values, default = metrics.values, EvaluateConfig()
    codes, fit = values["codes"], values.get("new_classes") or {}
    store = metrics.file.stem.removeprefix("metrics").removeprefix(f"-{codes}")[1:]
    given = {
        "codes": codes, "store": store or None, "seed": values["seed"],
        "shots": fit.get("shots"), "fit_steps": fit.get("fit_steps"),
    }  # fmt: skip
    words = ["lord-fast", "evaluate", str(run)]
    for name, value in given.items():
        if value is not None and value != getattr(default, name):
            words += _flag(name, value)
    return shlex.join(words) + ("  # the store of that name" if store else "")


def _flags(config: LoopConfig, defaults: LoopConfig) -> list[str]:
    """The flags that make `config` of its defaults."""
    return [
        word
        for name, value in vars(config).items()
        if value != getattr(defaults, name)
        for word in _flag(name, value)
    ]


def _flag(name: str, value) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", *map(str, value if isinstance(value, (list, tuple)) else [value])]


def _same(value, default) -> bool:
    """Whether a manifest's value is a default; JSON has lists for tuples."""
    return (tuple(value) if isinstance(value, list) else value) == default
