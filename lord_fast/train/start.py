"""Starts a stage in a run's folder. Everything is checked, set up and printed before training."""

from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from lord_fast import __version__, kernels
from lord_fast.bounds import flag
from lord_fast.config import (
    PRESETS,
    EncoderConfig,
    StageConfig,
    TrainConfig,
    encoder_defaults,
    fit_to,
    options,
    replace,
)
from lord_fast.data.store import ImageStore, open_store
from lord_fast.errors import fitting
from lord_fast.machine import Machine, set_up_for
from lord_fast.model.build import build_loss, stored_codes
from lord_fast.model.perceptual import PerceptualLoss
from lord_fast.run import checkpoint
from lord_fast.run.codes import Stage as StageName
from lord_fast.run.config import load_config, load_encoder_config, save_encoder_config
from lord_fast.run.folder import (
    check_encoders,
    check_run,
    check_weights,
    extend,
    has_begun,
    hold_run,
    write_run,
)
from lord_fast.run.history import Command
from lord_fast.train.encoders import EncoderStage
from lord_fast.train.form import RECORDED
from lord_fast.train.latent import LatentStage
from lord_fast.train.log import check_writer
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
    """Train stage 1 to its end, from its last checkpoint if it has one.

    Args:
        store_path: A packed store.
        run: The run's folder. It is created if it does not exist.
        config: The configuration, whose defaults `fit_to` adapts. An existing run must have the
            same one.
        console: Shows the header and the progress.
        command: Command to record in the run's history before the first step.
        from_step: Go back to the checkpoint of this step. 0 starts the stage again.

    Returns:
        Number of steps of the stage, or None if it was finished before.

    Raises:
        ValueError: The store cannot be trained on, an option is not available, the run has another
            configuration or store, or another process trains in it.
        Interrupted: The process received a signal. Training was saved.
    """
    store = ImageStore(store_path)
    data, config = store.describe(), fit_to(config, store.num_images)
    config = extend(run, config, "latent", store.num_images)
    check_run(run, config, data)
    end = config.total_steps(store.num_images)
    if _is_done(run, "latent", end, from_step):
        _remember_path(run, data)
        return None
    machine, config = prepare(config, store, _recorded(run, "latent"))
    stage = LatentStage(config, store, machine)
    config = replace(config, **stage.form.recorded())
    sha256 = _weights_of(stage)
    check_weights(run, sha256)
    with hold_run(run):
        check_run(run, config, data)  # Another process may have changed it before the lock.
        write_run(run, config, {**data, "perceptual_sha256": sha256})
        _record(command, run)
        console.print(header(stage, run, config.preset, PRESETS[config.preset]))
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
    """Train stage 2 to its end, from its last checkpoint if it has one.

    Args:
        run: A run whose stage 1 is finished.
        config: The configuration, whose defaults `fit_to` adapts. An existing stage 2 must have the
            same one.
        store_path: New path of the run's store, if the store has moved.
        console: Shows the header and the progress.
        command: Command to record in the run's history before the first step.
        from_step: Go back to the checkpoint of this step. 0 starts the stage again.

    Returns:
        Number of steps of the stage, or None if it was finished before.

    Raises:
        ValueError: Stage 1 is not finished, an option is not available, stage 2 has another
            configuration, or another process trains in the run.
        Interrupted: The process received a signal. Training was saved.
    """
    run_config, data = load_config(run / "config.yaml")
    config = fit_to(config, data["num_images"])
    config = extend(run, config, "encoders", data["num_images"])
    check_encoders(run, config)
    store = open_store(run, data, store_path)
    end = config.total_steps(store.num_images)
    if _is_done(run, "encoders", end, from_step):
        return None
    latent = _end_of_latent(run, run_config, store)
    machine, config = prepare(config, store, _recorded(run, "encoders"))
    codes = stored_codes(
        latent.tables, latent.step, run_config, store.num_images, store.num_classes, machine.device
    )
    stage = EncoderStage(config, run_config, store, latent.state, codes, machine)
    config = replace(config, **stage.form.recorded())
    check_weights(run, _weights_of(stage))
    with hold_run(run):
        check_encoders(run, config)  # Another process may have changed it before the lock.
        save_encoder_config(run / "encoders.yaml", config)
        _record(command, run)
        console.print(header(stage, run, run_config.preset, encoder_defaults(run_config)))
        with fitting(config.batch_size):
            run_stage(stage, run, console, from_step)
    return end


def _is_done(run: Path, stage: StageName, end: int, from_step: int | None) -> bool:
    """Return whether a stage is finished and `from_step` does not ask to go back.

    Raises:
        ValueError: There is no checkpoint of `from_step`.
    """
    if from_step is None:
        return checkpoint.is_finished(run / "checkpoints", stage, end)
    if from_step != 0:
        checkpoint.find(run / "checkpoints", stage, from_step)
    return False


def _end_of_latent(run: Path, config: TrainConfig, store: ImageStore) -> checkpoint.Loaded:
    """Load the last checkpoint of stage 1.

    Raises:
        ValueError: Stage 1 is not finished, or the checkpoint is damaged.
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


def check_weights_of(config: TrainConfig) -> None:
    """Load the perceptual weights, which are downloaded the first time.

    Raises:
        ValueError: The weights are not available. The error says what to do.
    """
    build_loss(config)


def header(stage: Stage, run: Path, preset: str, defaults: StageConfig) -> str:
    """Describe the configuration, the data, the device, the kernels and the output folder.

    Args:
        stage: The stage.
        run: The run's folder.
        preset: Name of the run's preset.
        defaults: The stage's configuration in this preset. Only options that differ are listed.
    """
    store, machine, steps = stage.store, stage.machine, stage.total_steps
    shape = f"{store.size} x {store.size} x {store.channels}"
    if store.encoded:
        shape += f", encoded, decoded by {store.describe_decoder()}"
    shape += f", on {store.placed}" if store.placed != "disk" else ""
    loss = "vgg16" if isinstance(stage.reconstruction, PerceptualLoss) else "pyramid"
    length = f"{steps} steps of {stage.batch_size} images"
    length += f" ({steps / stage.steps_per_epoch:.1f} epochs)"
    if stage.config.extended_from:
        length += f", extended from {stage.config.extended_from[-1]} steps"
    number, file = (1, "config.yaml") if stage.name == "latent" else (2, "encoders.yaml")
    chosen = ["preset", preset, *changed_options(stage.config, defaults)]
    return "\n".join((
        f"lord-fast {__version__}, stage {number}",
        f"data:    {store.path}: {store.num_images} images of {store.num_classes} classes, {shape}",
        f"device:  {machine.describe()}",
        f"form:    {stage.form.describe(machine.device.type == 'cuda')}",
        f"kernels: {kernels.live(machine.device.type)}",
        f"length:  {length}",
        f"loss:    {loss}",
        f"options: {' '.join(chosen)}",
        f"run:     {run} (every option: {run / file})",
    ))  # fmt: skip


def changed_options(config: StageConfig, defaults: StageConfig) -> list[str]:
    """List the options that differ from a preset, as on the command line."""
    usual = options(defaults)
    return [
        _as_typed(name, value)
        for name, value in options(config).items()
        if name not in RECORDED and value != usual[name]
    ]


def _as_typed(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return flag(name if value else f"no_{name}")
    return f"{flag(name)} {' '.join(map(str, value)) if isinstance(value, tuple) else value}"


def prepare(
    config: AnyStage, store: ImageStore, recorded: dict[str, str]
) -> tuple[Machine, AnyStage]:
    """Set up the device, the store's decoder and location, and the kernels.

    Args:
        config: The stage's configuration.
        store: The stage's images.
        recorded: The choices of the stage's earlier steps, see `form.RECORDED`. They replace
            `auto`.

    Returns:
        The machine, and the configuration with the recorded choices and the chosen precision. The
        precision is recorded so that it stays the same when training resumes on another machine.

    Raises:
        ValueError: An option is not available on this machine.
    """
    asked = options(config.machine)
    kept = {name: value for name, value in recorded.items() if asked[name] == "auto"}
    config = replace(config, **kept)
    if config.logging.tensorboard:
        check_writer()
    machine = set_up_for(config.machine)
    store.decode_with(config.machine.decoder, machine.device.type, machine.threads)
    store.place(config.machine.store_device, machine.device)
    kernels.use(config.machine.kernels, machine.device.type)
    kernels.probe(machine.device.type)
    return machine, replace(config, precision=machine.precision)


def _recorded(run: Path, stage: StageName) -> dict[str, str]:
    """Return the recorded choices of a stage, which are empty before its first checkpoint."""
    if not has_begun(run, stage):
        return {}
    if stage == "encoders":
        machine = load_encoder_config(run / "encoders.yaml").machine
    else:
        machine = load_config(run / "config.yaml")[0].machine
    return {name: getattr(machine, name) for name in RECORDED}


def _remember_path(run: Path, data: dict[str, Any]) -> None:
    """Write the path of a store that has moved into a finished run."""
    config, trained_on = load_config(run / "config.yaml")
    if trained_on["store"] != data["store"]:
        with hold_run(run):
            write_run(run, config, {**trained_on, "store": data["store"]})


def _record(command: Command | None, run: Path) -> None:
    if command is not None:
        command.record(run)


def _weights_of(stage: Stage) -> str | None:
    loss = stage.reconstruction
    return loss.vgg.sha256() if isinstance(loss, PerceptualLoss) else None
