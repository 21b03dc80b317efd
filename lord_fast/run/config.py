"""Reads and writes a run's configuration files, config.yaml (stage 1) and encoders.yaml (stage 2).

Every option is a key at the top level. config.yaml also has the key `data`, which describes the
store that the run was trained on. The first line is a comment with the sha256 of the content, which
reveals damage. Delete that line when you edit a file. Files without it, such as those of older
versions, are not checked.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

from lord_fast.atomic import atomic_write
from lord_fast.bounds import Checked, flag, is_crop
from lord_fast.config import (
    Default,
    EncoderConfig,
    LoggingConfig,
    MachineConfig,
    Recipe,
    StageConfig,
    TrainConfig,
    options,
    replace,
)
from lord_fast.presets import PRESETS, train_defaults

MAX_CONFIG_BYTES = 1 << 20
"""Largest size of a file that is read. A normal configuration has about 3 kB."""
AnyStage = TypeVar("AnyStage", bound=StageConfig)

FIRST_LINE = "# sha256 {} of this content; delete this line if you edit it"
SWITCHES = ("cache_target_features", "compile", "cuda_graph", "cudnn_benchmark")
"""Options that were true or false in older versions. YAML also reads `on` and `off` as these."""
ADDED: dict[str, Any] = {
    "cache_target_features": "off",
    "cudnn_benchmark": "off",
    "keep": 2,
    "extended_from": (),
    "table_device": "auto",
    "table_folder": None,
    "logger": (),
    "init_from": None,
    "virtual_ranks": 1,
    "timeout": 60.0,
    "content_discrepancy": 0.0,
    "content_init": "uniform",
    "warmup_steps": 0,
    "encoder_init": "linear",
    "reconstruction_weight": 1.0,
    "swaps": 0,
    "class_cross_entropy": 0.0,
    "class_bandwidth": 0.0,
    "content_bandwidth": 0.0,
    "content_codebook": 0,
    "content_candidates": 16,
}
"""Options that files of older versions lack, with the values that those versions used."""
MAY_DIFFER = {*options(MachineConfig()), *options(LoggingConfig()), "perceptual_weights"} - {
    "precision",
    "decoder",
}
"""Options that may change when a run is resumed, because they change at most the rounding. The path
of the perceptual weights may change too. Their hash is compared instead."""


def save_config(path: Path, config: TrainConfig, data: dict[str, Any]) -> None:
    """Write a run's config.yaml."""
    _write(path, {**as_plain(config), "data": data})


def load_config(path: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """Read a run's config.yaml. Return the configuration and the description of the store.

    Raises:
        ValueError: The file is missing, is not YAML, or has unknown, missing or damaged keys.
    """
    try:
        values = _read(path)
        data = values.pop("data")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"{path.parent}: not a run of lord-fast (no {path.name})") from error
    except KeyError as error:
        raise ValueError(f"{path}: not the configuration of a run (no {error})") from error
    config = from_plain(path, values, TrainConfig())
    check_data(path, data)
    return config, data


def options_from(
    path: Path, preset: str | None = None, recipe: Recipe | None = None
) -> TrainConfig:
    """Return a preset with the options of a file, for `lord-fast train --config`.

    Args:
        path: A run's config.yaml, or a YAML file with some of its keys.
        preset: The preset to start from. Defaults to the one in the file, or to laptop.
        recipe: The recipe to start from. Defaults to the one in the file, or to the preset's.

    Raises:
        ValueError: The file is missing or not YAML, or it has unknown keys or wrong values.
    """
    try:
        values = _read(path)
    except OSError as error:
        raise ValueError(f"--config {path}: {error.strerror}") from error
    values.pop("data", None)
    named = preset or values.get("preset", "laptop")
    try:
        start = train_defaults(named, recipe or values.get("recipe"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    unknown = ", ".join(sorted(set(values) - set(options(start))))
    if unknown:
        raise ValueError(f"{path}: no option of train: {unknown}; see lord-fast train --help")
    values |= {"preset": named, "recipe": start.recipe}
    whole = options(from_plain(path, {**as_plain(start), **values}, start))
    return replace(start, **{name: whole[name] for name in values})


def save_encoder_config(path: Path, config: EncoderConfig) -> None:
    """Write a run's encoders.yaml."""
    _write(path, as_plain(config))


def load_encoder_config(path: Path) -> EncoderConfig:
    """Read a run's encoders.yaml.

    Raises:
        ValueError: The file is not YAML, or has unknown, missing or damaged keys.
        FileNotFoundError: The file does not exist.
    """
    return from_plain(path, _read(path), EncoderConfig())


def as_plain(config: Checked) -> dict[str, Any]:
    """Return all options as values that YAML and JSON support."""
    return {name: _plain(value) for name, value in options(config).items()}


def differences(old: StageConfig, new: StageConfig) -> list[str]:
    """List forbidden changes of options when a run is resumed, as `--flag old -> new`.

    A precision of `auto` matches any precision. On a CPU the number of threads changes the last
    bits, so with several virtual ranks it must stay the same. 0 threads match any number.
    """
    values = options(new)
    fixed = {"threads"} if old.virtual_ranks > 1 and values["threads"] else set()
    if values["precision"] == "auto" or old.machine.precision == "auto":
        values["precision"] = old.machine.precision
    return [
        f"{flag(name)} {value} -> {values[name]}"
        for name, value in options(old).items()
        if name not in MAY_DIFFER - fixed and value != values[name]
    ]


def from_plain(path: Path, values: dict[str, Any], default: AnyStage) -> AnyStage:
    """Build a configuration from the values of a file, see `as_plain`.

    Args:
        path: The file, for error messages.
        values: Every option by name.
        default: A configuration of the same kind.

    Raises:
        ValueError: An option is unknown or missing, or a value is wrong.
    """
    known = options(default)
    values = {**{name: value for name, value in ADDED.items() if name in known}, **values}
    if "recipe" in known and values.get("preset") in tuple(PRESETS):
        values.setdefault("recipe", PRESETS[values["preset"]].recipe)  # Older versions lack it.
    for name in SWITCHES:
        if isinstance(values.get(name), bool):
            values[name] = "on" if values[name] else "off"
    if set(values) != set(known):
        odd = ", ".join(sorted(set(values) ^ set(known)))
        raise ValueError(f"{path}: written by another version of lord-fast (keys: {odd})")
    for name, default_value in known.items():
        if isinstance(default_value, tuple) and isinstance(values[name], list):
            values[name] = tuple(values[name])
    for name in ("perceptual_weights", "table_folder", "init_from"):
        if isinstance(values.get(name), str):
            values[name] = Path(values[name])
    _check_types(path, values, default)
    try:
        return replace(default, **values)
    except ValueError as error:
        raise ValueError(f"{path}: damaged or edited: {error}") from error


def _check_types(path: Path, values: dict[str, Any], config: Checked) -> None:
    """Check the types of values that an editor or a damaged disk may have changed.

    Raises:
        ValueError: A value has the wrong type. The error names the file and the key.
    """
    from typeguard import TypeCheckError, check_type

    for name, hint in get_type_hints(type(config)).items():
        if isinstance(getattr(config, name), Checked):
            _check_types(path, values, getattr(config, name))
            continue
        try:
            # A bool from YAML would pass as an int.
            if isinstance(values[name], bool) and hint is not bool:
                raise TypeCheckError("is not of the option's type")
            check_type(values[name], hint)
        except TypeCheckError as error:
            raise ValueError(f"{path}: {name}: {values[name]!r} {error}") from error


def _write(path: Path, values: dict[str, Any]) -> None:
    text = yaml.safe_dump(values, sort_keys=False)
    first = FIRST_LINE.format(_digest(yaml.safe_load(text)))
    atomic_write(path, f"{first}\n{text}")


def _read(path: Path) -> dict[str, Any]:
    try:
        text = _text(path)
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError(f"{path}: not written by lord-fast (it has YAML aliases)")
        values = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: damaged ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict) or not _has_text_keys(values):
        raise ValueError(f"{path}: not the configuration of a run")
    first = text.partition("\n")[0]
    if first.startswith("# sha256") and first != FIRST_LINE.format(_digest(values)):
        raise ValueError(
            f"{path}: damaged or edited (its sha256 has changed); take it from a copy, or delete "
            f"its first line if you edited it on purpose"
        )
    return values


def _has_text_keys(value: Any) -> bool:
    """Return whether all keys are text. YAML also reads numbers, dates and so on as keys."""
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and _has_text_keys([*value.values()])
    return all(map(_has_text_keys, value)) if isinstance(value, list) else True


def _text(path: Path) -> str:
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise yaml.YAMLError(f"more than {MAX_CONFIG_BYTES:,} bytes")
    return path.read_text()


def _digest(values: Any) -> str:
    content = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


def check_data(path: Path, data: Any) -> None:
    """Check the key `data`. Its crop and perceptual_sha256 are missing in files of older versions.

    Raises:
        ValueError: A value is missing or wrong. The error names the file and the key.
    """
    given = data if isinstance(data, dict) else {}
    text = [name for name in ("store", "sha256") if not isinstance(given.get(name), str)]
    counts = ("num_images", "num_classes", "size", "channels")
    wrong = text + [name for name in counts if type(given.get(name)) is not int or given[name] < 1]
    crop = given.get("crop")
    if crop is not None and not is_crop(crop):
        wrong.append("crop")
    if not isinstance(given.get("perceptual_sha256"), str | None):
        wrong.append("perceptual_sha256")
    if wrong:
        raise ValueError(
            f"{path}: damaged (data: {', '.join(wrong)}); take it from a copy, or train in a new "
            f"run"
        )


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Default):
        return int(value)
    return str(value) if isinstance(value, Path) else value
