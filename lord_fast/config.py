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

    format: Literal["auto", "folder", "npz", "glyphs"] = "auto"
    """What SOURCE is; auto: an .npz file, a folder, or the word glyphs."""
    size: int = 64
    """Side of the packed images: the shorter side is resized to it, the longer one cropped."""
    channels: Literal["auto", 1, 3] = "auto"
    """1 (grey), 3 (RGB), or auto: grey if every image is."""
    content_pattern: str | None = None
    """folder: a regular expression searched in each file's stem; every named group becomes a
    content factor, such as (?P<angle>\\d+). Without it the whole stem is the one content label."""
    min_class_size: int = 1
    """Leave out classes with fewer images; training needs at least 2 of each."""
    workers: int = 2
    """Threads that decode."""
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
class TrainConfig:
    """Stage 1: latent optimization. The defaults are the `laptop` preset's."""

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

    lr: float = 2e-3
    """Learning rate of generator and modulation."""
    latent_lr: float = 2e-2
    """Learning rate of both tables of codes."""
    min_lr: float = 1e-5
    """Where the cosine schedule of both ends."""
    beta1: float = 0.5
    """Adam's decay of the first moment."""
    beta2: float = 0.999
    """Adam's decay of the second moment."""
    eps: float = 1e-8
    """Adam's epsilon."""
    batch_size: int = 64
    """Images a step."""
    epochs: int = 100
    """Passes over the images; a last partial batch is dropped."""
    steps: int | None = None
    """Number of steps, instead of --epochs."""
    seed: int = 0
    """Of initial weights and codes, order of images and noise."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: a GPU if there is one."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Type of the convolutions; auto: bf16 where the device computes it fast."""
    compile: bool = False
    """Let torch.compile fuse the step (half a minute at the start)."""
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


MACHINE_FIELDS = frozenset(
    ("device", "precision", "compile", "threads", "log_every", "save_every", "grid_every",
     "tensorboard", "perceptual_weights")
)  # fmt: skip
"""What may differ when a run is resumed: it says where and how, not what is computed."""

PRESETS: dict[str, TrainConfig] = {
    "laptop": TrainConfig(),
    "demo": TrainConfig(),
    "paper": TrainConfig(
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
        batch_size=128,
        epochs=200,
    ),
}
PRESETS["a100"] = dataclasses.replace(
    PRESETS["paper"], precision="bf16", compile=True, device="cuda"
)


def check(config: TrainConfig) -> None:
    """Refuse values that no run can have.

    Raises:
        ValueError: names the flag.
    """
    positive = ("content_dim", "class_dim", "adain_dim", "lr", "latent_lr", "eps", "batch_size",
                "epochs", "log_every", "save_every", "grid_every")  # fmt: skip
    not_negative = ("content_std", "content_decay", "pixel_weight", "perceptual_weight", "min_lr",
                    "leaky_slope", "seed", "threads")  # fmt: skip
    values = vars(config)
    wrong = [(name, "positive") for name in positive if not values[name] > 0]
    wrong += [(name, "0 or more") for name in not_negative if not values[name] >= 0]
    if config.steps is not None and config.steps < 1:
        wrong.append(("steps", "positive"))
    for name in ("beta1", "beta2"):
        if not 0 <= values[name] < 1:
            wrong.append((name, "0 or more and less than 1"))
    for name, need in wrong:
        raise ValueError(f"--{name.replace('_', '-')} {values[name]}: must be {need}")


def save_config(path: Path, config: TrainConfig, data: dict[str, Any]) -> None:
    """Write a run's config.yaml: every field of `config`, and under `data` what it trains on."""
    fields = {name: _plain(value) for name, value in dataclasses.asdict(config).items()}
    partial = path.with_suffix(".partial")
    partial.write_text(yaml.safe_dump({**fields, "data": data}, sort_keys=False))
    partial.replace(path)


def load_config(path: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """Read what `save_config` wrote.

    Raises:
        ValueError: the file is missing, is not YAML, or has unknown or missing keys.
    """
    try:
        values = yaml.safe_load(path.read_text())
        data = values.pop("data")
    except FileNotFoundError as error:
        raise ValueError(f"{path.parent}: not a run of lord-fast (no {path.name})") from error
    except (yaml.YAMLError, AttributeError, KeyError) as error:
        raise ValueError(f"{path}: not the configuration of a run ({error})") from error
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    if set(values) != fields:
        odd = ", ".join(sorted(set(values) ^ fields))
        raise ValueError(f"{path}: written by another version of lord-fast (keys: {odd})")
    for name in ("perceptual_taps",):
        values[name] = tuple(values[name])
    if values["perceptual_weights"] is not None:
        values["perceptual_weights"] = Path(values["perceptual_weights"])
    return TrainConfig(**values), data


def differences(old: TrainConfig, new: TrainConfig) -> list[str]:
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
