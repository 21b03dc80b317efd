"""Starts stage 1 from another run instead of from random networks and codes."""

from pathlib import Path

import torch

from lord_fast.bounds import flag
from lord_fast.config import TrainConfig
from lord_fast.model.build import saved_shards, stored_classes, stored_shards
from lord_fast.model.latent import LatentTable
from lord_fast.run import checkpoint
from lord_fast.run.config import load_config
from lord_fast.train.latent import LatentStage

SIZES = ("content_dim", "class_dim", "adain_dim")
"""Options that set the sizes of the networks."""


def start_from(stage: LatentStage, run: Path) -> str:
    """Copy another run's networks into a new stage 1, and its codes if the images are the same.

    The moments of Adam begin with zeros, and the learning rates at the start of their schedule.

    Args:
        stage: The stage before its first step.
        run: The other run's folder.

    Returns:
        A line that says what was copied.

    Raises:
        ValueError: The other folder is not a run, has no checkpoint, or has networks or images of
            other sizes.
    """
    config, data = load_config(run / "config.yaml")
    _check_sizes(run, config, data, stage)
    shards = saved_shards(stage.shards.mine, stage.shards.count, config.virtual_ranks)
    found = checkpoint.load_latest(run / "checkpoints", "latent", shards=shards)
    if found is None:
        raise ValueError(f"--init-from {run}: has no checkpoint of stage 1 yet")
    stage.decoder.load_state_dict(found.state["decoder"])
    source = f"of {run}, step {found.step}"
    if data["sha256"] != stage.store.sha256:
        return f"networks {source} (new codes, because it was trained on other images)"
    _set_codes(stage, found, config)
    stage.is_warm = True
    return f"networks and codes {source}"


def _set_codes(stage: LatentStage, found: checkpoint.Loaded, config: TrainConfig) -> None:
    """Set the codes of the images of this process and of all classes."""
    images, classes = stage.store.num_images, stage.store.num_classes
    content = stored_shards(found.tables, found.step, config, images, stage.shards, stage.device)
    for shard, table in stage.contents.items():
        set_codes(table, content[shard])
    set_codes(
        stage.class_,
        stored_classes(found.tables, found.step, config, images, classes, stage.device),
    )


def _check_sizes(run: Path, config: TrainConfig, data: dict, stage: LatentStage) -> None:
    mine, store = stage.config, stage.store
    changed = [
        f"{flag(name)} {getattr(config.model, name)} -> {getattr(mine.model, name)}"
        for name in SIZES
        if getattr(config.model, name) != getattr(mine.model, name)
    ]
    changed += [
        f"{name} of the images {data[name]} -> {getattr(store, name)}"
        for name in ("size", "channels")
        if data[name] != getattr(store, name)
    ]
    if changed:
        raise ValueError(f"--init-from {run}: has other sizes: {', '.join(changed)}")


def set_codes(table: LatentTable, codes: torch.Tensor, rows: torch.Tensor | None = None) -> None:
    """Set codes of a new table.

    Args:
        table: The table before its first step.
        codes: float32 [k, dim].
        rows: int64 [k]. Defaults to all rows.
    """
    zeros = torch.zeros_like(codes)
    state = {
        "weight": codes, "exp_avg": zeros, "exp_avg_sq": zeros,
        "last_step": torch.zeros(len(codes), dtype=torch.int64),
    }  # fmt: skip
    table.write_rows(torch.arange(len(codes)) if rows is None else rows, state)
