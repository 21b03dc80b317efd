"""A run's folder: made once, checked when it is used again."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lord_fast.config import (
    EncoderConfig,
    TrainConfig,
    differences,
    load_config,
    load_encoder_config,
    save_config,
)
from lord_fast.data.store import ImageStore
from lord_fast.data.writer import read_manifest
from lord_fast.figures import Row, rows, title


def check_run(run: Path, config: TrainConfig, store: ImageStore) -> None:
    """Check that a run's folder is new, or is of the same configuration and store.

    Raises:
        ValueError: the folder is not a run, or is one of another configuration or store.
    """
    file = run / "config.yaml"
    if file.exists():
        old, data = load_config(file)
        changed = differences(old, config)
        if data["sha256"] != store.sha256:
            changed.append(f"store {data['store']} -> {store.path} (other images)")
        if changed:
            raise ValueError(
                f"{run}: a run of another configuration; give another --run, or remove it. "
                f"Differs: {'; '.join(changed)}"
            )
    elif run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise ValueError(f"{run}: not empty and not a run of lord-fast; give another --run")


def write_run(run: Path, config: TrainConfig, store: ImageStore) -> None:
    """Make the folder if need be and write config.yaml."""
    run.mkdir(parents=True, exist_ok=True)
    save_config(run / "config.yaml", config, describe(store))


def check_encoders(run: Path, config: EncoderConfig) -> None:
    """Check that a run has no stage 2 yet, or one of the same configuration.

    Raises:
        ValueError: it has one of another configuration.
    """
    file = run / "encoders.yaml"
    if not file.exists():
        return
    changed = differences(load_encoder_config(file), config)
    if changed:
        raise ValueError(
            f"{run}: has encoders of another configuration; repeat its flags, or remove {file} "
            f"and {run / 'checkpoints'}/amortized-*. Differs: {'; '.join(changed)}"
        )


def describe(store: ImageStore) -> dict[str, Any]:
    """What a run remembers of its store: where it was, its hash, its shape, and its cut."""
    return {
        "store": str(store.path.resolve()),
        "sha256": store.sha256,
        "num_images": store.num_images,
        "num_classes": store.num_classes,
        "size": store.size,
        "channels": store.channels,
        "crop": read_manifest(store.path).get("crop"),
    }


def crop_flag(crop: Sequence[int]) -> str:
    """What `lord-fast pack --crop` takes: WIDTHxHEIGHT or WIDTHxHEIGHT+LEFT+TOP."""
    width, height, *offset = crop
    return "+".join((f"{width}x{height}", *map(str, offset)))


def open_store(run: Path, data: dict[str, Any], moved_to: Path | None = None) -> ImageStore:
    """The store that a run was trained on.

    Args:
        run: The run's folder.
        data: What it remembers of its store, see `describe`.
        moved_to: Where the store is now; default: where it was.

    Raises:
        ValueError: it is gone, or holds other images now.
    """
    if moved_to is not None:
        return same_store(run, data, ImageStore(moved_to))
    if not data["store"]:
        raise ValueError(f"{run}: was imported, and has no store of its images")
    path = Path(data["store"])
    if not path.exists():
        raise ValueError(f"{run}: its store {path} is gone; say where it is with --store")
    return same_store(run, data, ImageStore(path))


def same_store(run: Path, data: dict[str, Any], store: ImageStore) -> ImageStore:
    """`store`, if it holds the images that the run was trained on.

    Raises:
        ValueError: it holds others.
    """
    if store.sha256 != data["sha256"]:
        raise ValueError(f"{store.path}: not the images that {run} was trained on")
    return store


@dataclass(frozen=True)
class Metrics:
    """A metrics*.json of a run.

    Attributes:
        file: Where it is.
        values: What it holds.
        title: Whose codes, of which images.
        rows: Its figures, readable.
    """

    file: Path
    values: dict[str, Any]
    title: str
    rows: list[Row]


def read_metrics(run: Path) -> list[Metrics]:
    """Everything that was measured of a run, metrics.json first.

    Raises:
        ValueError: a file is damaged, or lacks a figure.
    """
    files = sorted(run.glob("metrics*.json"), key=lambda file: (len(file.stem), file.stem))
    found = []
    for file in files:
        try:
            values = json.loads(file.read_text())
            found.append(Metrics(file, values, title(values), rows(values)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{file}: damaged, or of another version of lord-fast ({error!r}); remove it, or "
                f"measure again with lord-fast evaluate"
            ) from error
    return found
