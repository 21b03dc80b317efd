"""Trains a model from Python in one call. It imports the trainer when it is called."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from lord_fast.config import AnyConfig, Preset, options, replace
from lord_fast.data.again import check_store
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources import open_source
from lord_fast.presets import encoder_defaults, train_defaults


def train_model(
    images: Path,
    run: Path | None,
    size: int,
    preset: Preset,
    encoders: Mapping[str, Any] | None,
    console: Console,
    changes: Mapping[str, Any],
) -> Path:
    """Pack images and train both stages. See `Lord.train`.

    Returns:
        The run's folder.

    Raises:
        ValueError: An option does not exist or has a wrong value, the images cannot be packed, or
            the run has another configuration.
    """
    from lord_fast.train.start import train_encoders, train_latent

    config = _changed(train_defaults(preset, changes.get("recipe")), changes)
    stage_2 = None if encoders is None else _changed(encoder_defaults(config), encoders)
    run = run or Path("runs") / images.resolve().name.split(".")[0]
    store = _store_of(images, run, size, console)
    train_latent(store, run, config, console)
    if stage_2 is not None:
        train_encoders(run, stage_2, console=console)
    return run


def _store_of(images: Path, run: Path, size: int, console: Console) -> Path:
    """Return the store of the images, which is packed next to the run if they are no store."""
    if (images / "manifest.json").is_file():
        return images
    store, config = run.with_name(f"{run.name}-store"), PackConfig(size=size)
    source = open_source(str(images), config)
    if store.exists():
        check_store(images, store, run, len(source), size)
    else:
        console.print(f"packing {len(source)} images into {store}")
        pack(source, store, config)
    return store


def _changed(config: AnyConfig, changes: Mapping[str, Any]) -> AnyConfig:
    unknown = ", ".join(sorted(set(changes) - set(options(config))))
    if unknown:
        raise ValueError(f"{unknown}: no such option; see lord-fast train --help")
    paths = {name: Path(value) for name, value in changes.items() if name == "perceptual_weights"}
    return replace(config, **{**changes, **paths})
