"""Starts a stage in a run's folder. Everything is checked, set up and printed before training."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from torch import Tensor

from lord_fast import __version__, kernels
from lord_fast.bounds import flag
from lord_fast.config import (
    EncoderConfig,
    Recipe,
    StageConfig,
    TrainConfig,
    fit_to,
    options,
    replace,
)
from lord_fast.data.store import ImageStore, open_store
from lord_fast.distributed.group import Group
from lord_fast.distributed.processes import open_group
from lord_fast.distributed.shards import Shards, block
from lord_fast.errors import fitting
from lord_fast.launch import this_launch
from lord_fast.machine import Machine, set_up_for
from lord_fast.model.build import build_loss, saved_shards, stored_classes, stored_shards
from lord_fast.model.generator import num_adain_layers
from lord_fast.model.perceptual import PerceptualLoss
from lord_fast.presets import PRESETS, encoder_defaults, train_defaults
from lord_fast.run import checkpoint
from lord_fast.run.codes import Stage as StageName
from lord_fast.run.config import load_config, save_encoder_config
from lord_fast.run.folder import (
    assign_ranks,
    check_encoders,
    check_run,
    check_weights,
    extend,
    has_begun,
    hold_run,
    recorded,
    write_run,
)
from lord_fast.run.history import Command
from lord_fast.train.callbacks import NONE, Callbacks
from lord_fast.train.encoders import EncoderStage
from lord_fast.train.form import RECORDED
from lord_fast.train.initial import initialize
from lord_fast.train.latent import LatentStage
from lord_fast.train.loggers import check_loggers
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
    callbacks: Callbacks = NONE,
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
        callbacks: Functions to call after every step and every save.

    Returns:
        Number of steps of the stage, or None if it was finished before.

    Raises:
        ValueError: The store cannot be trained on, an option is not available, the run has another
            configuration or store, or another process trains in it.
        Interrupted: The process received a signal. Training was saved.
    """
    store = ImageStore(store_path)
    data, launch = store.describe(), this_launch()
    config = fit_to(assign_ranks(run, config, "latent", launch.world), store.num_images)
    config = extend(run, config, "latent", store.num_images)
    check_run(run, config, data)
    end = config.total_steps(store.num_images)
    if _is_done(run, "latent", end, from_step):
        if launch.rank == 0:
            _remember_path(run, store)
        return None
    machine, config = prepare(config, store, recorded(run, "latent"))
    group = open_group(launch, config.virtual_ranks, machine.device, config.machine.timeout)
    stage = LatentStage(config, store, machine, group, run)
    config = replace(config, **stage.form.recorded())
    begun = has_begun(run, "latent") and from_step != 0
    starts = [] if begun else initialize(stage)
    sha256 = _weights_of(stage)
    check_weights(run, sha256)

    def begin() -> None:
        check_run(run, config, data)  # Another process may have changed it before the lock.
        write_run(run, config, {**data, "perceptual_sha256": sha256}, store.class_names)
        _record(command, run)
        console.print(header(stage, run, config, train_defaults(config.preset, config.recipe)))
        for start in starts:
            console.print(f"start:   {start}")

    with closing(stage):
        _run(stage, run, begin, console, from_step, callbacks)
    return end


def _run(
    stage: Stage,
    run: Path,
    begin: Callable[[], None],
    console: Console,
    from_step: int | None,
    callbacks: Callbacks,
) -> None:
    """Run a stage in all processes. The first one locks the folder and writes the configuration."""
    with stage.group as group, ExitStack() as held:

        def claim() -> None:
            held.enter_context(hold_run(run))
            begin()

        group.alone(claim)
        with fitting(stage.config.batch_size):
            run_stage(stage, run, console, from_step, callbacks)


def train_encoders(
    run: Path,
    config: EncoderConfig,
    store_path: Path | None = None,
    console: Console = QUIET,
    command: Command | None = None,
    from_step: int | None = None,
    callbacks: Callbacks = NONE,
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
        callbacks: Functions to call after every step and every save.

    Returns:
        Number of steps of the stage, or None if it was finished before.

    Raises:
        ValueError: Stage 1 is not finished, an option is not available, stage 2 has another
            configuration, or another process trains in the run.
        Interrupted: The process received a signal. Training was saved.
    """
    run_config, data = load_config(run / "config.yaml")
    launch = this_launch()
    config = fit_to(assign_ranks(run, config, "encoders", launch.world), data["num_images"])
    config = extend(run, config, "encoders", data["num_images"])
    check_encoders(run, config)
    store = open_store(run, data, store_path)
    end = config.total_steps(store.num_images)
    if _is_done(run, "encoders", end, from_step):
        return None
    mine = block(config.virtual_ranks, launch.rank, launch.world)
    latent = _end_of_latent(run, run_config, store, mine)
    machine, config = prepare(config, store, recorded(run, "encoders"))
    group = open_group(launch, config.virtual_ranks, machine.device, config.machine.timeout)
    codes = _codes_of(latent, run_config, store, group, machine)
    stage = EncoderStage(config, run_config, store, latent.state, codes, machine, group)
    config = replace(config, **stage.form.recorded())
    check_weights(run, _weights_of(stage))

    def begin() -> None:
        check_encoders(run, config)  # Another process may have changed it before the lock.
        save_encoder_config(run / "encoders.yaml", config)
        _record(command, run)
        console.print(header(stage, run, run_config, encoder_defaults(run_config)))

    _run(stage, run, begin, console, from_step, callbacks)
    return end


def _codes_of(
    latent: checkpoint.Loaded,
    config: TrainConfig,
    store: ImageStore,
    group: Group,
    machine: Machine,
) -> tuple[dict[int, Tensor], Tensor]:
    """Return the content codes of the images of this process and all class codes of stage 1."""
    tables, step, images = latent.tables, latent.step, store.num_images
    content = stored_shards(tables, step, config, images, group.shards, machine.device)
    class_ = stored_classes(tables, step, config, images, store.num_classes, machine.device)
    return content, class_


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


def _end_of_latent(
    run: Path, config: TrainConfig, store: ImageStore, mine: Shards
) -> checkpoint.Loaded:
    """Load the last checkpoint of stage 1, of the content codes only those of own images.

    Raises:
        ValueError: Stage 1 is not finished, or the checkpoint is damaged.
    """
    end, checkpoints = config.total_steps(store.num_images), run / "checkpoints"
    done, found = checkpoint.steps_done(checkpoints, "latent"), None
    if done == end:
        wanted = saved_shards(mine.mine, mine.count, config.virtual_ranks)
        found = checkpoint.load_latest(checkpoints, "latent", shards=wanted)
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


def header(stage: Stage, run: Path, config: TrainConfig, defaults: StageConfig) -> str:
    """Describe the configuration, the data, the device, the kernels and the output folder.

    Args:
        stage: The stage.
        run: The run's folder.
        config: The run's configuration of stage 1.
        defaults: The defaults of the stage. Only options that differ are listed.
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
    if stage.shards.count > 1:
        length += f", {stage.shards.count} virtual ranks in {stage.group.world} processes"
    number, file = (1, "config.yaml") if stage.name == "latent" else (2, "encoders.yaml")
    chosen = ["preset", config.preset]
    if config.recipe != PRESETS[config.preset].recipe:
        chosen += ["--recipe", config.recipe]
    chosen += changed_options(stage.config, defaults)
    tables = stage.table_place.describe() if isinstance(stage, LatentStage) else ""
    return "\n".join((
        f"lord-fast {__version__}, stage {number}",
        f"data:    {store.path}: {store.num_images} images of {store.num_classes} classes, {shape}",
        f"device:  {machine.describe()}",
        f"form:    {stage.form.describe(machine.device.type == 'cuda')}",
        f"kernels: {kernels.live(machine.device.type)}",
        *([f"tables:  {tables}"] if tables else []),
        f"length:  {length}",
        f"loss:    {loss}",
        f"options: {' '.join(chosen)}",
        *network_note(config.recipe, store.size),
        f"run:     {run} (every option: {run / file})",
    ))  # fmt: skip


def network_note(recipe: Recipe, size: int) -> list[str]:
    """Say in a line that the published recipe trains another network for large images.

    Args:
        recipe: The run's recipe.
        size: Side of the images in pixels.
    """
    layers = num_adain_layers(size)
    if recipe != "published" or layers == 4:
        return []
    return [
        f"network: not the published one at {size} px: {layers} AdaIN layers from 4 x 4 instead of "
        f"4 from {size // 16} x {size // 16}"
    ]


def changed_options(config: StageConfig, defaults: StageConfig) -> list[str]:
    """List the options that differ from a preset, as on the command line."""
    usual = options(defaults)
    return [
        _as_typed(name, value)
        for name, value in options(config).items()
        if name not in (*RECORDED, "virtual_ranks") and value != usual[name]
    ]


def _as_typed(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return flag(name if value else f"no_{name}")
    return f"{flag(name)} {' '.join(map(str, value)) if isinstance(value, tuple) else value}"


def prepare(
    config: AnyStage, store: ImageStore, before: StageConfig | None
) -> tuple[Machine, AnyStage]:
    """Set up the device, the store's decoder and location, and the kernels.

    Args:
        config: The stage's configuration.
        store: The stage's images.
        before: Configuration of the stage's earlier steps, or None before the first step. Its
            choices replace `auto`, see `form.RECORDED`.

    Returns:
        The machine, and the configuration with the kept choices and the chosen precision. The
        precision is recorded so that it stays the same when training resumes on another machine.
        With several virtual ranks the number of threads is recorded too.

    Raises:
        ValueError: An option is not available on this machine.
    """
    if before is not None:
        asked, kept = options(config.machine), options(before.machine)
        config = replace(config, **{n: kept[n] for n in RECORDED if asked[n] == "auto"})
        if config.virtual_ranks > 1:
            config = replace(config, threads=before.machine.threads)
    check_loggers(config.logging)
    machine = set_up_for(config.machine)
    store.decode_with(config.machine.decoder, machine.device.type, machine.threads)
    store.place(config.machine.store_device, machine.device)
    kernels.use(config.machine.kernels, machine.device.type)
    kernels.probe(machine.device.type)
    if config.virtual_ranks > 1:
        config = replace(config, threads=machine.threads)
    return machine, replace(config, precision=machine.precision)


def _remember_path(run: Path, store: ImageStore) -> None:
    """Write the path of a store that has moved into a finished run."""
    config, trained_on = load_config(run / "config.yaml")
    path = store.describe()["store"]
    if trained_on["store"] != path:
        with hold_run(run):
            write_run(run, config, {**trained_on, "store": path}, store.class_names)


def _record(command: Command | None, run: Path) -> None:
    if command is not None:
        command.record(run)


def _weights_of(stage: Stage) -> str | None:
    loss = stage.reconstruction
    return loss.vgg.sha256() if isinstance(loss, PerceptualLoss) else None
