"""A run's folder. It is checked when it is used again, and only one process may train in it."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from lord_fast.atomic import atomic_write
from lord_fast.config import Default, EncoderConfig, StageConfig, TrainConfig, replace
from lord_fast.distributed.shards import block
from lord_fast.lock import LOCK, folder_lock
from lord_fast.run import checkpoint, history
from lord_fast.run.codes import Stage as StageName
from lord_fast.run.config import differences, load_config, load_encoder_config, save_config

AnyStage = TypeVar("AnyStage", bound=StageConfig)
CLASS_NAMES = "class_names.json"
LEFTOVER = re.compile(
    r"\.((config|encoders)\.yaml|class_names\.json|stats\.jsonl|[a-z]+-\d{9}\.png)\.\w+\.partial"
)
"""Names of the temporary files that `atomic_write` leaves if training is killed."""


@contextmanager
def hold_run(run: Path) -> Iterator[None]:
    """Lock a run's folder, which is created if needed, and remove files that killed processes left.

    Raises:
        ValueError: Another process trains in the folder.
    """
    run.mkdir(parents=True, exist_ok=True)
    with folder_lock(run):
        checkpoint.remove_leftovers(run / "checkpoints")
        for folder in (run, run / "grids"):
            for path in folder.glob(".*.partial"):
                if LEFTOVER.fullmatch(path.name):
                    path.unlink(missing_ok=True)
        yield


def check_run(run: Path, config: TrainConfig, data: dict[str, Any]) -> None:
    """Check that a run's folder is new, or has the same configuration and store.

    The configuration of a run without checkpoints may change.

    Args:
        run: The run's folder.
        config: The configuration to train with.
        data: Description of the store to train on, see `ImageStore.describe`.

    Raises:
        ValueError: The folder is not a run, or the run has another configuration or store.
    """
    file = run / "config.yaml"
    if file.exists():
        old, trained_on = load_config(file)  # refuses a file that is not ours
        if not has_begun(run, "latent"):
            return
        changed = differences(_lengthened(old, config), config)
        if trained_on["sha256"] != data["sha256"]:
            changed.append(f"store {trained_on['store']} -> {data['store']} (other images)")
        if changed:
            raise ValueError(
                f"{run}: this run has another configuration; repeat the flags that it was trained "
                f"with, give another --run, or remove it. Differences: {'; '.join(changed)}"
            )
    elif run.exists() and (not run.is_dir() or not all(map(_is_left_by_us, run.iterdir()))):
        raise ValueError(f"{run}: not empty and not a run of lord-fast; give another --run")


def extend(run: Path, config: AnyStage, stage: StageName, num_images: int) -> AnyStage:
    """Set `extended_from` to the earlier lengths of a stage.

    A finished stage is extended if the configuration has more steps. Its old length is then added.

    Args:
        run: The run's folder. It need not exist.
        config: The configuration to train with, after `fit_to`.
        stage: latent or encoders.
        num_images: Number of images of the store.

    Raises:
        ValueError: Stage 1 would be extended, but encoders were already trained on its codes.
    """
    old = recorded(run, stage)
    if old is None:
        return config
    before, extended = old.total_steps(num_images), old.extended_from
    if config.total_steps(num_images) > before:
        if not checkpoint.is_finished(run / "checkpoints", stage, before):
            return config
        if stage == "latent" and has_begun(run, "encoders"):
            raise ValueError(
                f"{run}: has encoders of the codes after {before} steps; to extend stage 1, remove "
                f"{run / 'encoders.yaml'} and {run / 'checkpoints'}/encoders-*"
            )
        extended = (*extended, before)
    return replace(config, extended_from=extended)


def recorded(run: Path, stage: StageName) -> StageConfig | None:
    """Return the configuration of a stage that has a checkpoint, or None."""
    if not has_begun(run, stage):
        return None
    if stage == "latent":
        return load_config(run / "config.yaml")[0]
    return load_encoder_config(run / "encoders.yaml")


def assign_ranks(run: Path, config: AnyStage, stage: StageName, world: int) -> AnyStage:
    """Set the number of virtual ranks if no flag has set it.

    A run keeps its number. A new one gets the default if the processes can share it, and the number
    of processes otherwise.

    Args:
        run: The run's folder. It need not exist.
        config: The configuration to train with.
        stage: latent or encoders.
        world: Number of processes.

    Raises:
        ValueError: The processes cannot share the virtual ranks equally.
    """
    ranks = config.virtual_ranks
    if isinstance(ranks, Default):
        old = recorded(run, stage)
        if old is not None:
            ranks = old.virtual_ranks
        elif ranks % world:
            ranks = world
    if ranks & (ranks - 1):
        raise ValueError(f"{world} processes: must be a power of two; start 1, 2, 4, 8, 16, ...")
    block(ranks, 0, world)
    return replace(config, virtual_ranks=int(ranks))


def has_begun(run: Path, stage: str) -> bool:
    """Return whether a stage of a run has a checkpoint."""
    return checkpoint.latest(run / "checkpoints", stage) is not None


def check_weights(run: Path, sha256: str | None) -> None:
    """Check that the perceptual weights are those that a run started with.

    Args:
        run: The run's folder. It need not exist.
        sha256: Hash of the current weights, or None if the loss uses no weights.

    Raises:
        ValueError: The run started with other weights.
    """
    if not has_begun(run, "latent"):
        return
    began_with = load_config(run / "config.yaml")[1].get("perceptual_sha256")
    if began_with is not None and sha256 is not None and began_with != sha256:
        raise ValueError(
            f"{run}: was trained with other perceptual weights (sha256 {began_with[:12]}..., these "
            f"have {sha256[:12]}...); give the same file with --perceptual-weights"
        )


def write_run(
    run: Path, config: TrainConfig, data: dict[str, Any], class_names: Sequence[str]
) -> None:
    """Write config.yaml and the names of the classes to a run's folder, which is created."""
    run.mkdir(parents=True, exist_ok=True)
    save_config(run / "config.yaml", config, data)
    write_class_names(run, class_names)


def write_class_names(folder: Path, class_names: Sequence[str]) -> None:
    """Write the names of the classes to a run or an exported model."""
    atomic_write(folder / CLASS_NAMES, json.dumps(list(class_names), indent=0) + "\n")


def read_class_names(folder: Path) -> list[str] | None:
    """Read the names of the classes. The result is None if an older version wrote the folder.

    Raises:
        ValueError: The file is damaged.
    """
    file = folder / CLASS_NAMES
    if not file.is_file():
        return None
    try:
        names = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file}: damaged ({error}); take it from a copy, or remove it") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{file}: damaged; take it from a copy, or remove it")
    return names


def check_encoders(run: Path, config: EncoderConfig) -> None:
    """Check that a run has no stage 2 yet, or one with the same configuration.

    Raises:
        ValueError: Stage 2 of the run has another configuration.
    """
    file = run / "encoders.yaml"
    if not file.exists() or not has_begun(run, "encoders"):
        return
    changed = differences(_lengthened(load_encoder_config(file), config), config)
    if changed:
        raise ValueError(
            f"{run}: has encoders of another configuration; repeat the flags that they were "
            f"trained with, or remove {file} and {run / 'checkpoints'}/encoders-*. "
            f"Differences: {'; '.join(changed)}"
        )


def _lengthened(old: AnyStage, new: StageConfig) -> AnyStage:
    """Return `old` with the length of `new` if `new` extends it."""
    if len(new.extended_from) <= len(old.extended_from):
        return old
    return replace(old, steps=new.steps, epochs=new.epochs, extended_from=new.extended_from)


def _is_left_by_us(path: Path) -> bool:
    """Return whether a file may be left over from a run that failed before it wrote config.yaml."""
    return path.name in (LOCK, history.FILE) or LEFTOVER.fullmatch(path.name) is not None
