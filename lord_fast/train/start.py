"""A stage from a run's folder: what is checked, set up and said before its first step."""

from pathlib import Path
from typing import TypeVar

import yaml
from rich.console import Console

from lord_fast import __version__, kernels
from lord_fast.config import EncoderConfig, StageConfig, TrainConfig, replace
from lord_fast.data.store import ImageStore, open_store
from lord_fast.errors import fitting
from lord_fast.machine import Machine, set_up_for
from lord_fast.model.perceptual import PerceptualLoss
from lord_fast.run import checkpoint
from lord_fast.run.codes import Stage as StageName
from lord_fast.run.config import (
    as_plain,
    load_config,
    load_encoder_config,
    save_encoder_config,
)
from lord_fast.run.folder import (
    check_encoders,
    check_run,
    check_weights,
    has_begun,
    hold_run,
    write_run,
)
from lord_fast.run.history import Command
from lord_fast.train.encoders import EncoderStage
from lord_fast.train.latent import LatentStage
from lord_fast.train.loop import run_stage
from lord_fast.train.stage import Stage

AnyStage = TypeVar("AnyStage", bound=StageConfig)
QUIET = Console(quiet=True)


def train_latent(
    store_path: Path,
    run: Path,
    config: TrainConfig,
    console: Console = QUIET,
    command: Command | None = None,
    from_step: int | None = None,
) -> int | None:
    """Stage 1 from its last checkpoint, or from its start, to its end.

    Args:
        store_path: A packed store.
        run: The run's folder, made if need be.
        config: What is trained. A run that exists must be of the same.
        console: Where the header and the progress go.
        command: Recorded in the run's history before the first step.
        from_step: Go back to the checkpoint of this step; 0: to the start.

    Returns:
        Steps of the stage; None where it was finished before.

    Raises:
        ValueError: the store or the configuration is not possible, the run is of another, or
            another process trains in it.
        Interrupted: Ctrl-C or a signal; everything is saved.
    """
    store = ImageStore(store_path)
    data = store.describe()
    check_run(run, config, data)
    end = config.total_steps(store.num_images)
    if _is_done(run, "latent", end, from_step):
        return None
    machine, config = _set_up(config, store, _precision_of(run, "latent"))
    stage = LatentStage(config, store, machine)
    sha256 = _weights_of(stage)
    check_weights(run, sha256)
    with hold_run(run):
        check_run(run, config, data)  # as another process may have left it since
        write_run(run, config, {**data, "perceptual_sha256": sha256})
        _record(command, run)
        console.print(header(config, store, run, machine))
        with fitting(config.batch_size):
            run_stage(stage, run, console, from_step)
    return end


def train_encoders(
    run: Path,
    config: EncoderConfig,
    store_path: Path | None = None,
    console: Console = QUIET,
    command: Command | None = None,
    from_step: int | None = None,
) -> int | None:
    """Stage 2 from its last checkpoint, or from the end of stage 1, to its end.

    Args:
        run: A run whose stage 1 is finished.
        config: What is trained. A stage 2 that exists must be of the same.
        store_path: Where the run's store is now, if it has moved.
        console: Where the header and the progress go.
        command: Recorded in the run's history before the first step.
        from_step: Go back to the checkpoint of this step; 0: to the start.

    Returns:
        Steps of the stage; None where it was finished before.

    Raises:
        ValueError: stage 1 is not finished, the configuration is not possible or another, or
            another process trains in the run.
        Interrupted: Ctrl-C or a signal; everything is saved.
    """
    run_config, data = load_config(run / "config.yaml")
    check_encoders(run, config)
    store = open_store(run, data, store_path)
    end = config.total_steps(store.num_images)
    if _is_done(run, "encoders", end, from_step):
        return None
    latent = _end_of_latent(run, run_config, store)
    machine, config = _set_up(config, store, _precision_of(run, "encoders"))
    stage = EncoderStage(config, run_config, store, latent.step, latent.state, machine)
    check_weights(run, _weights_of(stage))
    with hold_run(run):
        check_encoders(run, config)  # as another process may have left it since
        save_encoder_config(run / "encoders.yaml", config)
        _record(command, run)
        console.print(header(config, store, run, machine))
        with fitting(config.batch_size):
            run_stage(stage, run, console, from_step)
    return end


def _is_done(run: Path, stage: StageName, end: int, from_step: int | None) -> bool:
    """Whether a stage is finished, and nobody wants to go back.

    Raises:
        ValueError: there is no checkpoint to go back to.
    """
    if from_step is None:
        return checkpoint.is_finished(run / "checkpoints", stage, end)
    if from_step != 0:
        checkpoint.find(run / "checkpoints", stage, from_step)
    return False


def _end_of_latent(run: Path, config: TrainConfig, store: ImageStore) -> checkpoint.Loaded:
    """The last checkpoint of stage 1.

    Raises:
        ValueError: stage 1 is not finished, or the checkpoint is damaged.
    """
    end, checkpoints = config.total_steps(store.num_images), run / "checkpoints"
    done, found = checkpoint.steps_done(checkpoints, "latent"), None
    if done == end:
        found = checkpoint.load_latest(checkpoints, "latent")
        done = found.step if found else 0
    if found is None or done != end:
        raise ValueError(
            f"{run}: stage 1 has done {done} of {end} steps; finish it first: "
            f"lord-fast train {store.path} --run {run}"
        )
    return found


def header(config: StageConfig, store: ImageStore, run: Path, machine: Machine) -> str:
    """Configuration, data, device, live kernels and output folder, a line or more each."""
    shape = f"{store.size} x {store.size} x {store.channels}"
    if store.encoded:
        shape += f", encoded, decoded by {store.describe_decoder()}"
    shape += f", on {store.placed}" if store.placed != "disk" else ""
    return "\n".join((
        yaml.safe_dump(as_plain(config), sort_keys=False, default_flow_style=None).strip(),
        f"lord-fast {__version__}",
        f"data:    {store.path}: {store.num_images} images of {store.num_classes} classes, {shape}",
        f"device:  {machine.describe()}",
        f"kernels: {kernels.live(machine.device.type)}",
        f"run:     {run}",
    ))  # fmt: skip


def _set_up(config: AnyStage, store: ImageStore, precision: str | None) -> tuple[Machine, AnyStage]:
    """The machine, the store's decoder and place, and the kernels that a configuration names.

    Args:
        config: The stage's.
        store: Its images.
        precision: What the stage has run with so far; None: it has not run.

    Returns:
        The machine, and the configuration with the precision that was chosen: resuming on another
        machine keeps it.

    Raises:
        ValueError: one of them is not to be had.
    """
    if precision is not None:
        config = replace(config, precision=precision)
    machine = set_up_for(config.machine)
    store.decode_with(config.machine.decoder, machine.device.type, machine.threads)
    store.place(config.machine.store_device, machine.device)
    kernels.use(config.machine.kernels, machine.device.type)
    return machine, replace(config, precision=machine.precision)


def _precision_of(run: Path, stage: StageName) -> str | None:
    """The precision that a run's stage was started with; None before its first checkpoint."""
    if not has_begun(run, stage):
        return None
    if stage == "encoders":
        return load_encoder_config(run / "encoders.yaml").machine.precision
    return load_config(run / "config.yaml")[0].machine.precision


def _record(command: Command | None, run: Path) -> None:
    if command is not None:
        command.record(run)


def _weights_of(stage: Stage) -> str | None:
    loss = stage.reconstruction
    return loss.vgg.sha256() if isinstance(loss, PerceptualLoss) else None
