"""The trainings that `lord-fast bench quality` compares: the published recipe and the presets."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lord_fast.bench.options import PublishedCode
from lord_fast.bench.published import PublishedStep
from lord_fast.bench.published_tensorflow import TensorFlowStep
from lord_fast.config import MachineConfig, Switch, TrainConfig, fit_to, replace
from lord_fast.data.store import ImageStore, as_float
from lord_fast.machine import Machine, ieee_float32, synchronize, use_tf32
from lord_fast.presets import PRESETS
from lord_fast.run.config import options_from
from lord_fast.system import INFERENCE_BATCH
from lord_fast.train.initial import initialize
from lord_fast.train.latent import LatentStage

PUBLISHED = "published"
STEPS: dict[PublishedCode, type[PublishedStep]] = {
    "pytorch": PublishedStep, "tensorflow": TensorFlowStep,
}  # fmt: skip
BY_FLAG = {
    "device": "the device that auto selects", "precision": "--precision",
    "kernels": "the kernels that auto selects", "threads": "--threads",
}  # fmt: skip
"""Options of a file that all arms share -> what sets them."""
EAGER: dict[str, Switch] = dict.fromkeys(("compile", "cuda_graph", "cache_target_features"), "off")


@dataclass(frozen=True)
class Task:
    """What all arms share.

    Attributes:
        store: The images to train on.
        machine: Device, precision of lord-fast's convolutions, and threads.
        weights: Files of VGG16 weights by the input that they expect, such as `unit`. A missing
            file is downloaded.
        code: The published code whose recipe is compared.
        clock: Returns the time in seconds.
    """

    store: ImageStore
    machine: Machine
    weights: Mapping[str, Path | None] = field(default_factory=dict)
    code: PublishedCode = "pytorch"
    clock: Callable[[], float] = time.perf_counter

    def recipe(self, arm: str, steps: int, seed: int, others: Mapping[str, Any]) -> TrainConfig:
        """Return the configuration of an arm for a number of steps, with other options."""
        config = replace(settings(arm), steps=steps, seed=seed, **others)
        weights = self.weights.get(config.loss.perceptual_input)
        if weights is not None:
            config = replace(config, perceptual_weights=weights)
        return fit_to(config, self.store.num_images)


def settings(arm: str) -> TrainConfig:
    """Return the configuration of a preset, or of a YAML file of options.

    Raises:
        ValueError: There is no such preset or file, or an option of the file is wrong.
    """
    if arm in PRESETS:
        return PRESETS[arm]
    path = Path(arm)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise ValueError(
            f"--arms {arm}: neither a preset ({', '.join(PRESETS)}) nor a YAML file of options"
        )
    found = replace(options_from(path), extended_from=())
    for name in BY_FLAG:
        if getattr(found.machine, name) != getattr(MachineConfig(), name):
            raise ValueError(
                f"--arms {arm}: sets {name}, which is the same for all arms; remove it and use "
                f"{BY_FLAG[name]}"
            )
    return found


class Arm(ABC):
    """A training with a clock. It is also a source of its codes, see `CodeSource`.

    Attributes:
        stage: Stage 1 of lord-fast. The published arm takes its batches and initial values.
        name: The same as that of codes of stage 1 in metrics.json.
        seconds: Time that training has taken. What an arm prepares for its own steps counts.
        done: Number of finished steps.
    """

    stage: LatentStage
    name = "latent"

    def __init__(self, task: Task):
        self.task, self.seconds, self.done = task, 0.0, 0

    @property
    def total_steps(self) -> int:
        """Number of steps of the learning-rate schedule."""
        return self.stage.total_steps

    @property
    def images(self) -> int:
        """Number of images seen so far. An image counts each time that it is seen."""
        return self.done * self.stage.batch_size

    def train(self, until: int) -> None:
        """Do steps until `until` steps are done, and add their time to `seconds`."""
        start = self._now()
        while self.done < until:
            self.advance()
            self.done += 1
        self.seconds += self._now() - start

    def _now(self) -> float:
        synchronize(self.task.machine.device)
        return self.task.clock()

    @abstractmethod
    def advance(self) -> Tensor:
        """Do the next step and return its loss."""

    @property
    def lord(self) -> "Arm":
        """This arm, which decodes its codes."""
        return self

    @property
    def step(self) -> int:
        """Number of finished steps, see `evaluate.code_sources.Model`."""
        return self.done

    @abstractmethod
    def __call__(self, image_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the content codes without noise and the class codes of images, on the device."""

    @torch.no_grad()
    def decode(self, content: Tensor, class_: Tensor) -> Tensor:
        """Generate images [B, C, H, W] in [0, 1], on the device."""
        parts = zip(content.split(INFERENCE_BATCH), class_.split(INFERENCE_BATCH), strict=True)
        with ieee_float32(self.task.machine.device):
            return torch.cat([self.generate(*part) for part in parts])

    @abstractmethod
    def generate(self, content: Tensor, class_: Tensor) -> Tensor:
        """Generate a batch of images."""


class PublishedArm(Arm):
    """The published step (`lord_fast.bench.published`) with the recipe of `Task.code`.

    On CUDA its convolutions and matrix products use TF32, which is the fastest precision that gives
    the published code without changes to it.
    """

    def __init__(self, task: Task, steps: int, seed: int):
        """Start from the same values as lord-fast's `paper` preset.

        Args:
            task: The data and the machine.
            steps: Number of steps of the cosine schedule.
            seed: Seed of the initial values and of the order of the images.
        """
        super().__init__(task)
        machine = Machine(task.machine.device, torch.float32, task.machine.threads)
        step = STEPS[task.code]
        config = task.recipe("paper", steps, seed, {**EAGER, **step.options})
        self.stage = LatentStage(config, task.store, machine)
        self.published = step.like(self.stage)

    def advance(self) -> Tensor:
        """See `Arm.advance`. The images are contiguous float32."""
        use_tf32(self.stage.device.type == "cuda")
        ids = self.stage.sampler.image_ids(self.done)
        classes, pixels = self.task.store.class_ids[ids], self.task.store.images(ids)
        batch = ids, classes, as_float(pixels).contiguous()
        return self.published(*(part.to(self.stage.device) for part in batch))

    @torch.no_grad()
    def __call__(self, image_ids: Tensor) -> tuple[Tensor, Tensor]:
        """See `Arm`."""
        model, classes = self.published.model, self.task.store.class_ids[image_ids]
        return (
            model.content_embedding(image_ids.to(self.stage.device)),
            model.class_embedding(classes.to(self.stage.device)),
        )

    def generate(self, content: Tensor, class_: Tensor) -> Tensor:
        """See `Arm.generate`."""
        return self.published.model.generate(content, class_)


class PresetArm(Arm):
    """Stage 1 of lord-fast with a preset or with the options of a file."""

    def __init__(self, task: Task, preset: str, steps: int, seed: int, form: Mapping[str, Switch]):
        """Build the stage. The time that this takes counts, because it may cache features.

        Args:
            task: The data and the machine.
            preset: Name of the preset, or a file, see `settings`.
            steps: Number of steps of the schedules.
            seed: Seed of the training.
            form: Options of `train.form.RECORDED`. The others are those of the preset.
        """
        super().__init__(task)
        start = self._now()
        use_tf32(task.machine.tf32)
        config = task.recipe(preset, steps, seed, form)
        self.stage = LatentStage(config, task.store, task.machine)
        initialize(self.stage)
        self.seconds = self._now() - start

    def advance(self) -> Tensor:
        """See `Arm.advance`."""
        use_tf32(self.task.machine.tf32)
        return self.stage.step(self.done)["loss"]

    @torch.no_grad()
    def __call__(self, image_ids: Tensor) -> tuple[Tensor, Tensor]:
        """See `Arm`."""
        return self.stage.grid_codes(self.done, image_ids, image_ids)

    def generate(self, content: Tensor, class_: Tensor) -> Tensor:
        """See `Arm.generate`."""
        return self.stage.decoder(content, class_)


def build(
    name: str, task: Task, steps: int, seed: int = 0, form: Mapping[str, Switch] | None = None
) -> Arm:
    """Build the published arm or the arm of a preset or file.

    Args:
        name: `published`, the name of a preset, or a file, see `settings`.
        task: The data and the machine.
        steps: Number of steps of the schedules.
        seed: Seed of the training.
        form: See `PresetArm`.
    """
    if name == PUBLISHED:
        return PublishedArm(task, steps, seed)
    return PresetArm(task, name, steps, seed, form or {})
