"""A training step of --preset paper at 64 px: ours in every form that this machine has, and the
published one (bench/published.py), which is the base of the ratios.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lord_fast.bench.measure import Case, Row, measure, rows_of
from lord_fast.bench.published import PublishedStep, batch_of
from lord_fast.config import PRESETS, PackConfig, TrainConfig
from lord_fast.data.glyphs import Glyphs
from lord_fast.data.pack import pack
from lord_fast.data.store import ImageStore, as_float
from lord_fast.machine import Machine, has_fast_bf16
from lord_fast.model.perceptual import CONVOLUTIONS
from lord_fast.train.latent import LatentStage

CLASSES, ROTATIONS = 62, (-15.0, 15.0)
SCALING_IMAGES = (10_000, 100_000, 1_000_000, 10_000_000)
SCALING_CLASSES = (100, 10_000, 1_000_000)
TOTAL_STEPS = 10_000


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the step is measured on.

    Attributes:
        store: RGB images.
        config: The paper preset with random VGG16 weights.
        device: Where.
        threads: CPU threads.
    """

    store: ImageStore
    config: TrainConfig
    device: torch.device
    threads: int

    def stage(self, dtype: torch.dtype = torch.float32, **changes) -> LatentStage:
        """Our stage 1, with some flags changed."""
        machine = Machine(self.device, dtype, self.threads)
        return LatentStage(dataclasses.replace(self.config, **changes), self.store, machine)


@contextmanager
def setting(
    machine: Machine, batch: int, size: int = 64, adain_dim: int = 256
) -> Iterator[Setting]:
    """Glyphs as RGB images and random VGG16 weights, in a temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        glyphs = Glyphs(size, CLASSES, rotations=ROTATIONS)
        pack(glyphs, folder / "store", PackConfig(size=size, channels=3))
        save_file(random_weights(), folder / "vgg16.safetensors")
        config = dataclasses.replace(
            PRESETS["paper"], batch_size=batch, steps=TOTAL_STEPS, adain_dim=adain_dim,
            perceptual_weights=folder / "vgg16.safetensors",
        )  # fmt: skip
        yield Setting(ImageStore(folder / "store"), config, machine.device, machine.threads)


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    """VGG16's convolutions, drawn so that activations keep their size from layer to layer."""
    rng = torch.Generator().manual_seed(seed)
    weights = {}
    for n, (inputs, outputs) in CONVOLUTIONS.items():
        scale = (2 / (9 * inputs)) ** 0.5
        weights[f"features.{n}.weight"] = scale * torch.randn(outputs, inputs, 3, 3, generator=rng)
        weights[f"features.{n}.bias"] = 0.1 * torch.randn(outputs, generator=rng)
    return weights


FORMS: dict[str, Callable[[Setting], Callable[[], object]]] = {
    "published": lambda found: _published(found.stage(), frozen=False),
    "published, VGG frozen": lambda found: _published(found.stage(), frozen=True),
    "exact rewrites, float32": lambda found: _ours(found.stage()),
    "float32, compiled": lambda found: _ours(found.stage(compile=True)),
    "float32, cached features": lambda found: _ours(found.stage(cache_target_features=True)),
    "bf16": lambda found: _ours(found.stage(torch.bfloat16)),
    "bf16, compiled": lambda found: _ours(found.stage(torch.bfloat16, compile=True)),
    "bf16, compiled, cached features": lambda found: _ours(
        found.stage(torch.bfloat16, compile=True, cache_target_features=True)
    ),
}
"""Name -> maker of a step; the first is the base."""


def forms(device: str) -> list[str]:
    """The names of `FORMS` that are worth a try: bf16 only where it is computed fast."""
    return [name for name in FORMS if has_fast_bf16(device) or "bf16" not in name]


def step_rows(found: Setting, rounds: int = 3) -> list[Row]:
    """The ladder of variants, by the clock on the wall and by what all cores worked."""
    steps = {name: FORMS[name](found) for name in forms(found.device.type)}
    rows: list[Row] = []
    for clock, label in ((time.perf_counter, "wall"), (time.process_time, "processor")):
        if clock is time.process_time and found.device.type != "cpu":
            continue
        group = f"step, B={found.config.batch_size} {found.store.size} px, {label} time"
        params = {"B": found.config.batch_size}
        cases = [Case(group, name, params, _always(step)) for name, step in steps.items()]
        rows += rows_of(cases, measure(cases, rounds, found.device, calls=1, clock=clock))
    return rows


def scaling_rows(found: Setting, axis: str, sizes: tuple[int, ...], rounds: int = 5) -> list[Row]:
    """A step against the number of images or of classes: larger tables, the same few images."""
    cases = []
    for size in sizes:
        store = _Repeated(found.store, **{axis: size})
        step = _ours(dataclasses.replace(found, store=store).stage())
        cases.append(Case(f"step over {axis}", f"{axis}={size}", {axis: size}, _always(step)))
    return rows_of(cases, measure(cases, rounds, found.device, calls=1))


def operations(found: Setting) -> dict[str, float]:
    """GFLOP an image of the published step and of ours, with and without cached features."""
    plain = found.stage()
    steps = {
        "published": _published(plain, frozen=False),
        "ours": _ours(plain),
        "ours, cached features": _ours(found.stage(cache_target_features=True)),
    }
    counted = {}
    for name, step in steps.items():
        with FlopCounterMode(display=False) as counter:
            step()
        counted[name] = counter.get_total_flops() / found.config.batch_size / 1e9
    return counted


def _always(step: Callable[[], object]) -> Callable[[], Callable[[], object]]:
    return lambda: step


def _ours(stage: LatentStage) -> Callable[[], object]:
    done = iter(range(TOTAL_STEPS))
    return lambda: stage.step(next(done))


def _published(stage: LatentStage, frozen: bool) -> Callable[[], object]:
    published = PublishedStep.like(stage)
    published.vgg.requires_grad_(not frozen)
    done = iter(range(TOTAL_STEPS))

    def step() -> Tensor:
        ids, classes, pixels, noise = batch_of(stage, next(done))
        return published(*(t.to(stage.device) for t in (ids, classes, as_float(pixels), noise)))

    return step


class _Repeated(ImageStore):
    """A store's images over and over, for tables of any size."""

    def __init__(self, store: ImageStore, images: int | None = None, classes: int | None = None):
        self.__dict__.update(vars(store))
        self.num_images = images or 2 * (classes or 0)
        self.num_classes = classes or store.num_classes
        self.class_ids = torch.arange(self.num_images) % self.num_classes

    def images(self, image_ids: Tensor) -> Tensor:
        return super().images(image_ids % len(self.pixels))
