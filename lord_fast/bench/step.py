"""Benchmarks of a training step of --preset paper in all forms that this machine supports.

The published step (lord_fast/bench/published.py) is the base of the ratios.
"""

import dataclasses
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from lord_fast.bench.measure import Case, Row, measure, rows_of
from lord_fast.bench.published import PublishedStep
from lord_fast.config import Switch, TrainConfig, replace
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources.glyphs import Glyphs
from lord_fast.data.store import ImageStore, as_float
from lord_fast.machine import Machine, has_fast_bf16, set_up, synchronize, use_tf32
from lord_fast.memory import free_memory
from lord_fast.model.perceptual import CONVOLUTIONS
from lord_fast.presets import PRESETS
from lord_fast.run import snapshot
from lord_fast.train.capture import COMPARED, WARM_UP
from lord_fast.train.latent import LatentStage

CLASSES, ROTATIONS = 62, (-15.0, 15.0)
SCALING_IMAGES = (10_000, 100_000, 1_000_000, 10_000_000)
SCALING_CLASSES = (100, 10_000, 1_000_000)
TOTAL_STEPS = 10_000
SHARE_OF_MEMORY = 0.8
"""Maximum share of the free memory that the tables may take."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """The data, configuration and device that a step is measured with.

    Attributes:
        store: Store of RGB images.
        config: The paper preset with random VGG16 weights.
        device: Device of the step.
        threads: Number of CPU threads.
    """

    store: ImageStore
    config: TrainConfig
    device: torch.device
    threads: int

    def stage(self, dtype: torch.dtype = torch.float32, **changes) -> LatentStage:
        """Build lord-fast's stage 1 with some flags changed."""
        machine = Machine(self.device, dtype, self.threads)
        return LatentStage(replace(self.config, **changes), self.store, machine)


@contextmanager
def setting(
    machine: Machine, batch: int, size: int = 64, adain_dim: int = 256
) -> Iterator[Setting]:
    """Yield a setting with glyphs as RGB images and random VGG16 weights."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        glyphs = Glyphs(size, CLASSES, rotations=ROTATIONS)
        pack(glyphs, folder / "store", PackConfig(size=size, channels=3))
        save_file(random_weights(), folder / "vgg16.safetensors")
        config = replace(
            PRESETS["paper"], batch_size=batch, steps=TOTAL_STEPS, adain_dim=adain_dim,
            compile="off", cuda_graph="off", cache_target_features="off",
            perceptual_weights=folder / "vgg16.safetensors",
        )  # fmt: skip
        yield Setting(ImageStore(folder / "store"), config, machine.device, machine.threads)


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    """Random weights of VGG16's convolutions, scaled so that activations keep their magnitude."""
    rng = torch.Generator().manual_seed(seed)
    weights = {}
    for n, (inputs, outputs) in CONVOLUTIONS.items():
        scale = (2 / (9 * inputs)) ** 0.5
        weights[f"features.{n}.weight"] = scale * torch.randn(outputs, inputs, 3, 3, generator=rng)
        weights[f"features.{n}.bias"] = 0.1 * torch.randn(outputs, generator=rng)
    return weights


Step = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Form:
    """A way to compute the step.

    Attributes:
        name: Name in the results.
        published: Whether this is the published step instead of lord-fast's.
        tf32: Whether CUDA uses TF32 for float32 products.
        dtype: dtype of the convolutions.
        flags: Flags that are set in the configuration of lord-fast's step.
    """

    name: str
    published: bool = False
    tf32: bool = False
    dtype: torch.dtype = torch.float32
    flags: dict[str, Switch] = dataclasses.field(default_factory=dict)

    def make(self, found: Setting) -> Step:
        """Build a function that does one step. Every form has its own networks and tables."""
        stage = found.stage(self.dtype, **self.flags)
        step = _published(stage, "frozen" in self.name) if self.published else _ours(stage)

        def work() -> object:
            use_tf32(self.tf32)
            return step()

        return work


def forms(device: str) -> list[Form]:
    """The forms that can be fast on a device type. The first is the base of the ratios."""
    tf32 = device == "cuda"
    name = "TF32" if tf32 else "float32"
    ladder = [
        Form(f"published, {name}", True, tf32),
        Form(f"published, {name}, VGG frozen", True, tf32),
        Form(f"exact rewrites, {name}", False, tf32),
        Form(f"{name}, compiled", False, tf32, flags={"compile": "on"}),
        Form(f"{name}, cached features", False, tf32, flags={"cache_target_features": "on"}),
    ]
    if tf32:
        ladder.insert(1, Form("published, float32", True))
    if has_fast_bf16(device):
        flags: dict[str, Switch] = {}
        words = ["bf16"]
        ladder.append(Form("bf16", dtype=torch.bfloat16))
        for flag in ("compile", *(["cuda_graph"] if tf32 else []), "cache_target_features"):
            flags = {**flags, flag: "on"}
            words.append(WORDS[flag])
            ladder.append(Form(", ".join(words), dtype=torch.bfloat16, flags=flags))
    return ladder


WORDS = {
    "compile": "compiled",
    "cuda_graph": "CUDA graph",
    "cache_target_features": "cached features",
}


Ladder = dict[str, "Worked"]


def ladder(found: Setting) -> Ladder:
    """Build every form, and do the warm-up steps that compile and capture it."""
    steps = {form.name: Worked(form.make(found)) for form in forms(found.device.type)}
    for step in steps.values():
        for _ in range(WARM_UP + COMPARED if found.device.type == "cuda" else 1):
            step()
    return steps


def step_rows(found: Setting, steps: Ladder, rounds: int = 5, calls: int = 1) -> list[Row]:
    """Time all forms, by wall-clock time and, on a CPU, also by the CPU time of all threads."""
    batch, params = found.config.batch_size, {"B": found.config.batch_size}
    group = f"step, B={batch} {found.store.size} px"
    for step in steps.values():
        step.seconds.clear()
    cases = [
        Case(f"{group}, wall time", name, params, step.prepare) for name, step in steps.items()
    ]
    rows = rows_of(cases, measure(cases, rounds, found.device, calls))
    if found.device.type == "cpu":
        worked = [dataclasses.replace(case, group=f"{group}, processor time") for case in cases]
        rows += rows_of(worked, [step.seconds for step in steps.values()])
    return rows


def save_row(found: Setting, step_ms: float, rounds: int = 3) -> tuple[Row, float]:
    """Time the saves of a stage in its current form.

    Args:
        found: The setting.
        step_ms: Time of a step in milliseconds.
        rounds: Number of saves. As many rows change between two saves as in training.

    Returns:
        The row of a save, and the share of training that saves take with the default interval.
    """
    stage, every = found.stage(), found.config.logging.save_every
    stage.step(0)
    seconds: list[float] = []
    touched = every * found.config.batch_size
    with tempfile.TemporaryDirectory() as name:
        previous = None
        for step in range(every, (1 + rounds) * every, every):
            for shards in stage.tables().values():
                for shard in shards.values():
                    shard.last_step[:touched] = step
            synchronize(found.device)
            start = time.perf_counter()
            state = stage.state()
            previous = snapshot.save(Path(name), stage.name, step, state, stage.tables(), previous)
            seconds.append(time.perf_counter() - start)
    params = {"B": found.config.batch_size, "images": found.store.num_images}
    case = Case("save", "lord-fast", params, lambda: lambda: None)
    (row,) = rows_of([case], [seconds])
    between = every * step_ms
    return row, row.median_ms / (between + row.median_ms)


class Worked:
    """A step that records the CPU time of all threads."""

    def __init__(self, step: Step):
        self.step, self.seconds = step, list[float]()

    def __call__(self) -> None:
        """Do a step and record its CPU time."""
        start = time.process_time()
        self.step()
        self.seconds.append(time.process_time() - start)

    def prepare(self) -> "Worked":
        """See `Case.prepare`."""
        return self


def scaling_rows(
    found: Setting, axis: str, sizes: tuple[int, ...], rounds: int = 3, calls: int = 1
) -> list[Row]:
    """Time a step for growing numbers of images or classes.

    Only the tables grow. The images are those of the setting, repeated. The largest size is built
    first, and a size whose tables do not fit into the memory that is then free is skipped.
    `memory_mb` is the memory in MiB that the stage and its first step added. On a CPU it is the
    growth of the process, so the largest size also includes what all sizes share.
    """
    cases: list[Case] = []
    for size in sorted(sizes, reverse=True):
        if _table_bytes(found.config, axis, size) > SHARE_OF_MEMORY * free_memory(found.device):
            continue
        before = _used_memory(found.device)
        store = _Repeated(found.store, **{axis: size})
        step = _ours(dataclasses.replace(found, store=store).stage())
        step()
        megabytes = (_used_memory(found.device) - before) >> 20
        params = {axis: size, "B": found.config.batch_size, "memory_mb": megabytes}
        cases.insert(0, Case(f"step over {axis}", f"{axis}={size:,}", params, _always(step)))
    return rows_of(cases, measure(cases, rounds, found.device, calls))


def scaling_alone(
    shape: dict[str, int], threads: int, axis: str, sizes: tuple[int, ...]
) -> list[Row]:
    """Run `scaling_rows` in a new process, which returns its memory when it ends."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_scaling, shape, threads, axis, sizes).result()


def _scaling(shape: dict[str, int], threads: int, axis: str, sizes: tuple[int, ...]) -> list[Row]:
    with setting(set_up(threads=threads), **shape) as found:
        return scaling_rows(found, axis, sizes)


def _table_bytes(config: TrainConfig, axis: str, size: int) -> int:
    """Bytes of both tables. Each value takes three float32, and each class has two images."""
    content = 12 * config.model.content_dim
    return size * (content if axis == "images" else 2 * content + 12 * config.model.class_dim)


def _used_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return psutil.Process().memory_info().rss


def launches(found: Setting, steps: Ladder) -> dict[str, int]:
    """Count the kernels that a step launches on CUDA, or its operators on a CPU.

    Compiled forms are left out on a CPU, because their operators are fused.
    """
    cuda = found.device.type == "cuda"
    return {
        name: _launches(step) if cuda else _operators(step)
        for name, step in steps.items()
        if cuda or "compiled" not in name
    }


def _launches(step: Step) -> int:
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        step()
        torch.cuda.synchronize()
    return sum(event.count for event in seen.key_averages() if "Launch" in event.key)


def _operators(step: Step) -> int:
    """Count the operators that call no other operator."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        step()
    return sum(not event.cpu_children for event in seen.events())


def convolution_shares(found: Setting, steps: Ladder) -> dict[str, float]:
    """The share of each step spent in convolutions. Fusing other operators cannot reduce it."""
    return {name: _convolution_share(step, found.device) for name, step in steps.items()}


def _convolution_share(step: Step, device: torch.device) -> float:
    cuda = [ProfilerActivity.CUDA][: device.type == "cuda"]
    with profile(activities=[ProfilerActivity.CPU, *cuda]) as seen:
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
    which = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    times = {event.key: getattr(event, which) for event in seen.key_averages()}
    return sum(time for key, time in times.items() if "convolution" in key) / sum(times.values())


def operations(found: Setting) -> dict[str, float]:
    """GFLOP per image of the published step and of lord-fast's, with and without feature cache."""
    plain = found.stage()
    steps = {
        "published": _published(plain, frozen=False),
        "ours": _ours(plain),
        "ours, cached features": _ours(found.stage(cache_target_features="on")),
    }
    counted = {}
    for name, step in steps.items():
        with FlopCounterMode(display=False) as counter:
            step()
        counted[name] = counter.get_total_flops() / found.config.batch_size / 1e9
    return counted


def _always(step: Step) -> Callable[[], Step]:
    return lambda: step


def _ours(stage: LatentStage) -> Step:
    done = iter(range(TOTAL_STEPS))
    return lambda: stage.step(next(done))


def _published(stage: LatentStage, frozen: bool) -> Callable[[], object]:
    published = PublishedStep.like(stage)
    published.vgg.requires_grad_(not frozen)
    done = iter(range(TOTAL_STEPS))

    def step() -> Tensor:
        # The published code uses contiguous NCHW images and noise from torch.randn.
        ids = stage.sampler.image_ids(next(done))
        classes, pixels = stage.store.class_ids[ids], stage.store.images(ids)
        images = as_float(pixels).contiguous()
        return published(*(t.to(stage.device) for t in (ids, classes, images)))

    return step


class _Repeated(ImageStore):
    """A store that repeats the images of another, for tables of any size."""

    def __init__(self, store: ImageStore, images: int | None = None, classes: int | None = None):
        self.__dict__.update(vars(store))
        self.num_images = images or 2 * (classes or 0)
        self.num_classes = classes or store.num_classes
        self.class_ids = torch.arange(self.num_images) % self.num_classes

    def images(self, image_ids: Tensor, pinned: bool = False) -> Tensor:
        return super().images(image_ids % len(self.pixels), pinned)
