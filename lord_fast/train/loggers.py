"""Sends figures, grids and options of a run to the tools that people already use.

Each logger is a thin adapter of the library of a tool. The library and its environment variables
decide where the data goes, such as WANDB_MODE=offline or MLFLOW_TRACKING_URI.
"""

import importlib.util
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from lord_fast.atomic import atomic_write
from lord_fast.config import LoggingConfig, StageConfig
from lord_fast.run.codes import Stage
from lord_fast.run.config import as_plain
from lord_fast.run.folder import recorded
from lord_fast.run.metrics import Metrics

PROJECT = "lord-fast"
"""The project or experiment that a run is filed under."""
FILE = "loggers.json"
"""Holds the ids of a run in the tools, so that a resumed run continues there."""


class Logger(Protocol):
    """An adapter of a tool. It logs one stage of one run."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Log figures of a step."""

    def picture(self, step: int, file: Path) -> None:
        """Log a grid."""

    def close(self) -> None:
        """Send everything that is left."""


class _TensorBoard:
    def __init__(self, run: Path, stage: str, config: dict[str, Any], key: str):
        from torch.utils.tensorboard import SummaryWriter

        self.stage, self.writer = stage, SummaryWriter(run / "tensorboard")
        rows = "\n".join(f"| {name} | {value} |" for name, value in config.items())
        self.writer.add_text(f"{stage}/options", f"| option | value |\n|---|---|\n{rows}")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"{self.stage}/{name}", value, step)

    def picture(self, step: int, file: Path) -> None:
        import numpy as np

        pixels = np.asarray(Image.open(file).convert("RGB"))
        self.writer.add_image(f"{self.stage}/grid", pixels, step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class _Wandb:
    def __init__(self, run: Path, stage: str, config: dict[str, Any], key: str):
        import wandb

        self.image = wandb.Image
        try:
            self.run = wandb.init(
                project=PROJECT, name=f"{run.resolve().name}-{stage}", id=f"{key}-{stage}",
                resume="allow", config=config, dir=run,
            )  # fmt: skip
        except wandb.errors.UsageError as error:
            raise ValueError(f"--logger wandb: {error}; or set WANDB_MODE=offline") from error
        # Steps may repeat after going back, which W&B allows only for a metric of its own.
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self.run.log({**values, "step": step})

    def picture(self, step: int, file: Path) -> None:
        self.run.log({"grid": self.image(str(file)), "step": step})

    def close(self) -> None:
        self.run.finish()


class _Mlflow:
    def __init__(self, run: Path, stage: str, config: dict[str, Any], key: str):
        from mlflow import MlflowClient

        self.client = MlflowClient()
        found = self.client.get_experiment_by_name(PROJECT)
        place = found.experiment_id if found else self.client.create_experiment(PROJECT)
        tag = f"{key}-{stage}"
        earlier = self.client.search_runs([place], f"tags.lord_fast = '{tag}'")
        if earlier:
            self.id = earlier[0].info.run_id
            self.client.update_run(self.id, "RUNNING")
            return
        name = f"{run.resolve().name}-{stage}"
        self.id = self.client.create_run(
            place, run_name=name, tags={"lord_fast": tag}
        ).info.run_id  # fmt: skip
        for option, value in config.items():
            self.client.log_param(self.id, option, value)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.client.log_metric(self.id, name, value, step=step)

    def picture(self, step: int, file: Path) -> None:
        with Image.open(file) as image:
            self.client.log_image(self.id, image, key="grid", step=step, synchronous=True)

    def close(self) -> None:
        self.client.set_terminated(self.id)


class _Trackio:
    def __init__(self, run: Path, stage: str, config: dict[str, Any], key: str):
        import trackio

        self.image = trackio.Image
        self.run = trackio.init(
            project=PROJECT, name=f"{run.resolve().name}-{stage}-{key}", resume="allow",
            config=config, embed=False, auto_log_cpu=False, auto_log_gpu=False,
        )  # fmt: skip

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def picture(self, step: int, file: Path) -> None:
        self.run.log({"grid": self.image(file)}, step=step)

    def close(self) -> None:
        self.run.finish()


KINDS: dict[str, Callable[..., Logger]] = {
    "tensorboard": _TensorBoard, "wandb": _Wandb, "mlflow": _Mlflow, "trackio": _Trackio,
}  # fmt: skip


def names(config: LoggingConfig) -> tuple[str, ...]:
    """Return the chosen loggers, without repetitions. --tensorboard is one of them."""
    return tuple(dict.fromkeys((*(("tensorboard",) * config.tensorboard), *config.logger)))


def check_loggers(config: LoggingConfig) -> None:
    """Check that the packages of the chosen loggers are installed.

    Raises:
        ValueError: One is missing. The error says how to install it.
    """
    for name in names(config):
        if importlib.util.find_spec(name) is None:
            chosen = f"--logger {name}" if name in config.logger else "--tensorboard"
            raise ValueError(f"{chosen}: the package is missing; pip install 'lord-fast[{name}]'")


def open_loggers(run: Path, stage: str, config: StageConfig) -> list[Logger]:
    """Open the chosen loggers for a stage of a run.

    Raises:
        ValueError: A package is missing, or a tool refuses.
    """
    chosen = names(config.logging)
    if not chosen:
        return []
    check_loggers(config.logging)
    options = {name: "" if value is None else value for name, value in as_plain(config).items()}
    return [KINDS[name](run, stage, options, _key(run)) for name in chosen]


def log_metrics(run: Path, metrics: Metrics) -> None:
    """Send the figures of an evaluation to the loggers that the run was trained with.

    A figure is named after its file and its place there, such as metrics/reconstruction/psnr.

    Args:
        run: The run's folder.
        metrics: The metrics of stage 2 if `codes` is encoder, else those of stage 1.

    Raises:
        ValueError: The stage has no checkpoint, a package is missing, or a tool refuses.
    """
    stage: Stage = "encoders" if metrics.values["codes"] == "encoder" else "latent"
    config = recorded(run, stage)
    if config is None:
        raise ValueError(f"{run}: stage {stage} has no checkpoint")
    figures = dict(_figures(metrics.file.stem, metrics.values))
    for logger in open_loggers(run, stage, config):
        try:
            logger.scalars(metrics.values["step"], figures)
        finally:
            logger.close()


def _figures(name: str, value: object) -> Iterator[tuple[str, float]]:
    """Yield the numbers of nested dictionaries. Lists, such as intervals, are left out."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _figures(f"{name}/{key}", part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value


def _key(run: Path) -> str:
    """Return the id of a run in the tools. The first call draws it."""
    file = run / FILE
    try:
        return str(json.loads(file.read_text())["id"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        key = uuid.uuid4().hex[:12]
        atomic_write(file, json.dumps({"id": key}) + "\n")
        return key
