"""Estimates the cost of training from a few steps on the same machine."""

import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from lord_fast.config import EncoderConfig, Switch, TrainConfig, fit_to, replace
from lord_fast.data.store import ImageStore
from lord_fast.machine import synchronize
from lord_fast.run.checkpoint import State
from lord_fast.run.segments import Tables
from lord_fast.train.encoders import EncoderStage
from lord_fast.train.latent import LatentStage
from lord_fast.train.stage import Stage
from lord_fast.train.start import prepare

MEASURED = 4
"""Number of steps of each stage. The first one is not timed."""
PLAIN: dict[str, Switch] = {"compile": "off", "cuda_graph": "off", "cache_target_features": "off"}
"""The form of these steps. Preparing another form would take longer than the estimate should."""


@dataclass(frozen=True)
class Cost:
    """The estimated cost of both stages.

    Attributes:
        length: Describes the steps and batches of both stages.
        latent_seconds: Time of stage 1 in seconds.
        encoders_seconds: Time of stage 2 in seconds.
        memory: Memory of the process in bytes, or memory of the GPU if there is one.
        disk: Size of the run's checkpoints in bytes.
    """

    length: str
    latent_seconds: float
    encoders_seconds: float
    memory: int
    disk: int

    def __str__(self) -> str:
        both = self.latent_seconds + self.encoders_seconds
        return (
            f"about {duration(both)} (stage 1 {duration(self.latent_seconds)}, stage 2 "
            f"{duration(self.encoders_seconds)}), {self.memory / 1e9:.1f} GB of memory, "
            f"{self.disk / 1e6:,.0f} MB of disk"
        )


def estimate(store_path: Path, config: TrainConfig, encoders: EncoderConfig) -> Cost:
    """Train a few steps of both stages, discard the result and extrapolate the time.

    Args:
        store_path: The store to train on.
        config: Configuration of stage 1.
        encoders: Configuration of stage 2.

    Raises:
        ValueError: A stage cannot run with this configuration.
    """
    store = ImageStore(store_path)
    machine, config = prepare(fit_to(config, store.num_images), store, None)
    encoders = fit_to(encoders, store.num_images)
    config, encoders = replace(config, **PLAIN), replace(encoders, **PLAIN)
    latent = LatentStage(config, store, machine)
    first, done = seconds_a_step(latent)
    state = latent.state()
    content = {shard: table.codes(done) for shard, table in latent.contents.items()}
    codes = content, latent.class_.codes(done)
    second = EncoderStage(encoders, config, store, state, codes, machine)
    seconds, _ = seconds_a_step(second)
    return Cost(
        f"{_length(latent)}, then {_length(second)} for the encoders",
        first * latent.total_steps,
        seconds * second.total_steps,
        _memory(machine.device),
        size_of(state) * config.logging.keep
        + size_of_tables(latent.tables()) * max(config.logging.keep, 2)
        + size_of(second.state()) * encoders.logging.keep,
    )


def seconds_a_step(stage: Stage) -> tuple[float, int]:
    """Return the mean time of a few steps in seconds, and the number of steps that were trained."""
    steps = min(MEASURED, stage.total_steps)
    warm_up = min(1, steps - 1)
    for step in range(warm_up):
        stage.step(step)
    synchronize(stage.device)
    start = time.perf_counter()
    for step in range(warm_up, steps):
        stage.step(step)
    synchronize(stage.device)
    return (time.perf_counter() - start) / (steps - warm_up), steps


def size_of(state: State) -> int:
    """Return the size of a checkpoint without its tables in bytes."""
    return sum(tensor.nbytes for tensors in state.values() for tensor in tensors.values())


def size_of_tables(tables: Tables) -> int:
    """Return the size of latent tables in bytes. Checkpoints together hold two of each at most."""
    shards = [shard for of_table in tables.values() for shard in of_table.values()]
    return sum(shard.num_rows * (12 * shard.dim + 16) for shard in shards)


def duration(seconds: float) -> str:
    """Format a time, such as `40 s`, `12 min` or `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _length(stage: Stage) -> str:
    return f"{stage.total_steps} steps of {stage.batch_size} images"


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss
