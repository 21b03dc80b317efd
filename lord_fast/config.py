"""Every setting: a field here is a flag of the command line and a key of the run's config.yaml."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

Preset = Literal["demo", "laptop", "paper", "a100"]


@dataclass(frozen=True)
class PackConfig:
    """How a source becomes a store."""

    format: Literal[
        "auto", "folder", "archive", "npz", "glyphs", "smallnorb", "cars3d", "shapes3d", "celeba",
        "kth", "rafd", "mnist",
    ] = "auto"  # fmt: skip
    """What SOURCE is; auto: a folder, a zip or tar of one, an .npz file, or the word glyphs. The
    data sets are read from the files that they are published as (docs/data.md)."""
    size: int = 64
    """Side of the packed images: the shorter side is resized to it, the longer one cropped."""
    channels: Literal["auto", 1, 3] = "auto"
    """1 (grey), 3 (RGB), or auto: grey if every image is."""
    content_pattern: str | None = None
    """folder: a regular expression searched in each file's stem; every named group becomes a
    content factor, such as (?P<angle>\\d+). Without it the whole stem is the one content label."""
    min_class_size: int = 1
    """Leave out classes with fewer images; training needs at least 2 of each."""
    class_factors: tuple[str, ...] = ()
    """Data sets with several labels: those that together make the class; none: the published."""
    crop: str = "auto"
    """Cut WIDTHxHEIGHT pixels (around the centre) or WIDTHxHEIGHT+LEFT+TOP out of every image
    before scaling; none: nothing; auto: what the data set's published use cuts out."""
    every: int = 1
    """kth: take every n-th frame of a video."""
    decoder: Literal["auto", "dali", "pillow"] = "auto"
    """Who decodes; auto: DALI where it is installed and works."""
    encoded: bool = False
    """Keep the original files in the store and decode them while training, for data whose pixels
    fit neither memory nor disk."""
    max_bad: int = 0
    """Pack although so many images are broken; they are left out, and listed in left_out.jsonl."""
    workers: int = 0
    """Threads that decode; 0: as many as there are cores."""
    classes: int = 62
    """glyphs: number of characters."""
    typefaces: tuple[str, ...] = ()
    """glyphs: names of matplotlib's fonts; none: ten typefaces for up to 62 classes, fewer that
    share more characters for more classes."""
    rotations: tuple[float, ...] = (-30, -15, 0, 15, 30)
    """glyphs: rotations in degrees."""
    scales: tuple[float, ...] = (1.0,)
    """glyphs: relative sizes; a content factor if there are several."""


@dataclass(frozen=True)
class LoopConfig:
    """Where and how a stage of training runs: none of it changes what is computed."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: a GPU if there is one."""
    precision: Literal["auto", "float32", "tf32", "bf16"] = "auto"
    """Type of the convolutions; auto: bf16 where the device computes it fast, else float32; tf32:
    float32 with products of 10 bits of mantissa, for CUDA."""
    kernels: Literal["auto", "reference", "native", "triton"] = "auto"
    """Kernels of the tables of codes: reference (plain PyTorch), native (C++, for the CPU), triton
    (for CUDA); auto: the fastest that the device has."""
    decoder: Literal["auto", "dali", "pillow"] = "auto"
    """Encoded stores: who decodes; auto: who decoded when the store was packed."""
    store_device: Literal["auto", "cuda", "pinned", "disk"] = "auto"
    """Where a GPU's images lie: cuda (on it, as bytes), pinned (page-locked host memory), disk
    (memory-mapped); auto: the first of them that half of the free memory holds. CPU: disk."""
    compile: bool = False
    """Let torch.compile fuse the step (half a minute at the start)."""
    cuda_graph: bool = False
    """Capture the whole step in a CUDA graph and replay it."""
    threads: int = 0
    """CPU threads; 0: as many as there are cores."""
    log_every: int = 50
    """Steps between lines of stats.jsonl."""
    save_every: int = 500
    """Steps between checkpoints."""
    grid_every: int = 500
    """Steps between swap grids."""
    tensorboard: bool = False
    """Also write TensorBoard events to RUN/tensorboard (needs the tensorboard extra)."""


@dataclass(frozen=True)
class TrainConfig(LoopConfig):
    """Stage 1: latent optimization. The defaults are the `laptop` preset's."""

    preset: Preset = "laptop"
    """What the other flags default to: laptop; demo (32 px glyphs in minutes); paper (the
    published PyTorch settings); a100 (paper in bf16, compiled)."""
    content_dim: int = 64
    """Length of a content code (one an image)."""
    class_dim: int = 128
    """Length of a class code (one a class)."""
    adain_dim: int = 64
    """Channels of the generator's AdaIN layers, a multiple of 8."""
    leaky_slope: float = 0.01
    """Negative slope of every LeakyReLU."""
    adain_init: Literal["identity", "linear"] = "identity"
    """Start of the modulation: identity (scale 1, bias 0 before the class speaks) or linear
    (PyTorch's default for a Linear, as published)."""
    content_std: float = 1.0
    """Standard deviation of the Gaussian noise on content codes."""
    content_decay: float = 1e-4
    """Weight of the mean over the batch of the noisy content code's sum of squares."""

    loss: Literal["vgg16", "pyramid"] = "vgg16"
    """Reconstruction loss: VGG16 features and pixels, or multi-scale L1, which needs no weights."""
    pixel_weight: float = 1.0
    """vgg16: weight of the mean absolute difference of pixels."""
    perceptual_weight: float = 0.1
    """vgg16: weight of the mean absolute difference of each tap."""
    perceptual_taps: tuple[str, ...] = ("relu1_2", "relu2_2", "relu3_2")
    """vgg16: the layers compared, of relu1_2 relu2_2 relu3_2 relu3_3 relu4_3 pool5."""
    perceptual_scale: Literal["normalized", "raw"] = "normalized"
    """vgg16: divide each tap by its mean activation on the training images, or take it as it is."""
    perceptual_input: Literal["caffe", "imagenet", "unit"] = "caffe"
    """vgg16: the weights' convention: caffe (ImageNet mean subtracted, 0-255), imagenet
    (torchvision's mean and standard deviation), unit (RGB in [0, 1] as it is, as published)."""
    perceptual_weights: Path | None = None
    """vgg16: file of the weights (safetensors or a torch state dict, torchvision's names); none:
    download those that go with --perceptual-input, once."""
    cache_target_features: bool = False
    """vgg16: compute the features of the training images once and keep them in memory (1.8 MB an
    image of 64 px with the default taps in float32); the same losses, a quarter faster."""

    optimizer: Literal["torch", "apex"] = "torch"
    """Fused Adam of the networks: PyTorch's, or NVIDIA apex's (a build of your own, CUDA)."""
    lr: float = 2e-3
    """Learning rate of generator and modulation."""
    latent_lr: float = 8e-2
    """Learning rate of the content codes."""
    class_lr: float = 2e-2
    """Learning rate of the class codes."""
    min_lr: float = 1e-5
    """Where the cosine schedules of all three end."""
    beta1: float = 0.5
    """Adam's decay of the first moment."""
    beta2: float = 0.999
    """Adam's decay of the second moment."""
    eps: float = 1e-8
    """Adam's epsilon."""
    batch_size: int = 32
    """Images a step."""
    epochs: int = 45
    """Passes over the images; a last partial batch is dropped."""
    steps: int | None = None
    """Number of steps, instead of --epochs."""
    seed: int = 0
    """Of initial weights and codes, order of images and noise."""


@dataclass(frozen=True)
class EncoderConfig(LoopConfig):
    """Stage 2: amortization. Everything else is the run's; its preset sets the defaults."""

    encoder_dim: int = 128
    """Channels of the encoders' last three convolutions and width of their fully connected
    layers, a multiple of 4; the first convolutions have a quarter and a half of it."""
    content_weight: float = 0.03
    """Weight of the mean squared error of the content code (published: 10, for codes that its
    smaller learning rate leaves ten times smaller)."""
    class_weight: float = 1.0
    """Weight of the mean squared error of the class code (published: 10)."""
    lr: float = 5e-4
    """Learning rate of encoders, generator and modulation."""
    min_lr: float = 1e-5
    """Where its cosine schedule ends."""
    batch_size: int = 64
    """Images a step."""
    epochs: int = 50
    """Passes over the images; a last partial batch is dropped."""
    steps: int | None = None
    """Number of steps, instead of --epochs."""
    seed: int = 0
    """Of initial weights and order of images."""
    perceptual_weights: Path | None = None
    """vgg16: file of the weights; none: what the run was trained with."""


@dataclass(frozen=True)
class EvaluateConfig:
    """What evaluate measures."""

    store: Path | None = None
    """latent: where the run's store is now, if it has moved; encoder: any store of the same size,
    such as images held out (default: the run's); fit: classes held out."""
    codes: Literal["latent", "encoder", "fit"] = "latent"
    """latent: the codes that training optimized (RUN/metrics.json); encoder: those that the
    encoders predict (RUN/metrics-encoder[-STORE].json); fit: new classes, a class code fitted to
    a few images of each, with contents of training (RUN/metrics-fit-STORE.json)."""
    perceptual_weights: Path | None = None
    """VGG16 weights for perceptual distance and samples; none: those of the run; a run with --loss
    pyramid has none, and the two are left out."""
    perceptual_input: Literal["caffe", "imagenet", "unit"] | None = None
    """The convention of these weights, as for train; none: the run's, which is caffe if it was
    trained with --loss pyramid and nothing else was said."""
    shots: int = 5
    """fit: images of each new class that its code is made from."""
    fit_steps: int = 300
    """fit: steps of each optimization."""
    seed: int = 0
    """Of every draw and of the probes."""


MACHINE_FIELDS = frozenset(
    (
        *(field.name for field in dataclasses.fields(LoopConfig)),
        "perceptual_weights",
        "cache_target_features",
    )
)
"""What may differ when a run is resumed: it says where and how, not what is computed."""

PRESETS: dict[str, TrainConfig] = {
    "laptop": TrainConfig(),
    "demo": TrainConfig(
        preset="demo",
        content_dim=16,
        class_dim=64,
        adain_dim=32,
        content_decay=3e-5,
        loss="pyramid",
        lr=3e-3,
        batch_size=32,
        steps=7500,
        save_every=1500,
        grid_every=1500,
        log_every=100,
    ),
    "paper": TrainConfig(
        preset="paper",
        content_dim=128,
        class_dim=256,
        adain_dim=256,
        adain_init="linear",
        perceptual_weight=1.0,
        perceptual_taps=("relu1_2", "relu2_2", "relu3_2", "relu4_3", "pool5"),
        perceptual_scale="raw",
        perceptual_input="unit",
        lr=3e-4,
        latent_lr=3e-3,
        class_lr=3e-3,
        batch_size=128,
        epochs=200,
    ),
}
PRESETS["a100"] = dataclasses.replace(
    PRESETS["paper"], preset="a100", precision="bf16", compile=True, device="cuda"
)

ENCODER_PRESETS: dict[str, EncoderConfig] = {
    "laptop": EncoderConfig(),
    "demo": EncoderConfig(encoder_dim=64, lr=2e-3, batch_size=32, epochs=12),
    "paper": EncoderConfig(
        content_weight=10.0, class_weight=10.0, encoder_dim=256, lr=1e-4, batch_size=128, epochs=200
    ),
}
ENCODER_PRESETS["a100"] = ENCODER_PRESETS["paper"]


def encoder_defaults(config: TrainConfig) -> EncoderConfig:
    """Stage 2 of a run: what goes with its preset, where and how its stage 1 ran."""
    machine = {field.name: getattr(config, field.name) for field in dataclasses.fields(LoopConfig)}
    return dataclasses.replace(ENCODER_PRESETS[config.preset], **machine)


def check(config: LoopConfig) -> None:
    """Refuse values that no run can have.

    Raises:
        ValueError: names the flag.
    """
    positive = ("content_dim", "class_dim", "adain_dim", "encoder_dim", "lr", "latent_lr",
                "class_lr", "eps", "batch_size", "epochs", "steps", "log_every", "save_every",
                "grid_every")  # fmt: skip
    not_negative = ("content_std", "content_decay", "pixel_weight", "perceptual_weight",
                    "content_weight", "class_weight", "min_lr", "leaky_slope", "seed",
                    "threads")  # fmt: skip
    values = {name: value for name, value in vars(config).items() if value is not None}
    wrong = [(name, "positive") for name in positive if not values.get(name, 1) > 0]
    wrong += [(name, "0 or more") for name in not_negative if not values.get(name, 1) >= 0]
    for name in ("beta1", "beta2"):
        if not 0 <= values.get(name, 0) < 1:
            wrong.append((name, "0 or more and less than 1"))
    for name, need in wrong:
        raise ValueError(f"--{name.replace('_', '-')} {values[name]}: must be {need}")


def save_config(path: Path, config: TrainConfig, data: dict[str, Any]) -> None:
    """Write a run's config.yaml: every field of `config`, and under `data` what it trains on."""
    _write(path, {**as_plain(config), "data": data})


def load_config(path: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """Read what `save_config` wrote.

    Raises:
        ValueError: the file is missing, is not YAML, or has unknown, missing or damaged keys.
    """
    try:
        values = _read(path)
        data = values.pop("data")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"{path.parent}: not a run of lord-fast (no {path.name})") from error
    except KeyError as error:
        raise ValueError(f"{path}: not the configuration of a run (no {error})") from error
    _check_keys(path, values, TrainConfig)
    _check_data(path, data)
    values["perceptual_taps"] = tuple(values["perceptual_taps"])
    return TrainConfig(**values), data


def save_encoder_config(path: Path, config: EncoderConfig) -> None:
    """Write a run's encoders.yaml: every field of `config`."""
    _write(path, as_plain(config))


def load_encoder_config(path: Path) -> EncoderConfig:
    """Read what `save_encoder_config` wrote.

    Raises:
        ValueError: the file is not YAML, or has unknown or missing keys.
        FileNotFoundError: there is none.
    """
    values = _read(path)
    _check_keys(path, values, EncoderConfig)
    return EncoderConfig(**values)


def as_plain(config: LoopConfig) -> dict[str, Any]:
    """Every field as YAML and JSON can hold it."""
    return {name: _plain(value) for name, value in dataclasses.asdict(config).items()}


def _write(path: Path, values: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(yaml.safe_dump(values, sort_keys=False))
    partial.replace(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not the configuration of a run ({error})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: not the configuration of a run")
    if values.get("perceptual_weights") is not None:
        values["perceptual_weights"] = Path(values["perceptual_weights"])
    return values


def _check_keys(path: Path, values: dict[str, Any], kind: type) -> None:
    fields = {field.name for field in dataclasses.fields(kind)}
    if set(values) != fields:
        odd = ", ".join(sorted(set(values) ^ fields))
        raise ValueError(f"{path}: written by another version of lord-fast (keys: {odd})")


def _check_data(path: Path, data: Any) -> None:
    """Refuse a `data:` that `lord_fast.run.describe` did not write (crop came later than the rest).

    Raises:
        ValueError: names the file and the key.
    """
    given = data if isinstance(data, dict) else {}
    text = [name for name in ("store", "sha256") if not isinstance(given.get(name), str)]
    counts = ("num_images", "num_classes", "size", "channels")
    wrong = text + [name for name in counts if type(given.get(name)) is not int or given[name] < 1]
    crop = given.get("crop")
    is_crop = isinstance(crop, list) and len(crop) in (2, 4) and {type(n) for n in crop} == {int}
    if crop is not None and not is_crop:
        wrong.append("crop")
    if wrong:
        raise ValueError(
            f"{path}: damaged (data: {', '.join(wrong)}); take it from a copy, or train in a new "
            f"run"
        )


def differences(old: LoopConfig, new: LoopConfig) -> list[str]:
    """The fields that must not change when a run is resumed but do, as `--flag old -> new`."""
    return [
        f"--{name.replace('_', '-')} {value} -> {getattr(new, name)}"
        for name, value in dataclasses.asdict(old).items()
        if name not in MACHINE_FIELDS and value != getattr(new, name)
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value
