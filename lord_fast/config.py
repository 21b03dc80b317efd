"""What every stage shares: the options of a run, their groups, and the presets.

A field is a flag of the command line and a key of the run's config.yaml. Its name is unique among
the groups of a configuration. Options of one part only live with that part, such as
`lord_fast.data.options`.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from lord_fast.bounds import AtLeast, Below, Checked, MoreThan

Preset = Literal["demo", "laptop", "paper", "a100"]
PerceptualInput = Literal["caffe", "imagenet", "unit"]
AnyConfig = TypeVar("AnyConfig", bound="Checked")
MOST_DIM = 1 << 16
"""Sizes of codes and layers are below this."""
MOST_STEPS = 100_000_000
"""Steps are below this. A learning rate and a number are kept for each."""


@dataclass(frozen=True)
class ModelConfig(Checked):
    """Sizes of the codes and of the generator."""

    content_dim: Annotated[int, MoreThan(0), Below(MOST_DIM)] = 64
    """Length of a content code (one per image)."""
    class_dim: Annotated[int, MoreThan(0), Below(MOST_DIM)] = 128
    """Length of a class code (one per class)."""
    adain_dim: Annotated[int, MoreThan(0), Below(MOST_DIM)] = 64
    """Channels of the generator's AdaIN layers, a multiple of 8."""
    leaky_slope: Annotated[float, AtLeast(0)] = 0.01
    """Negative slope of every LeakyReLU."""
    adain_init: Literal["identity", "linear"] = "identity"
    """Initial modulation. identity: scale 1 and bias 0 for every class. linear: PyTorch's default
    for a linear layer, as published."""
    content_std: Annotated[float, AtLeast(0)] = 1.0
    """Standard deviation of the Gaussian noise on content codes during training."""


@dataclass(frozen=True)
class LossConfig(Checked):
    """The reconstruction loss and the penalty on content codes."""

    loss: Literal["vgg16", "pyramid"] = "vgg16"
    """vgg16: differences of VGG16 features and of pixels. pyramid: L1 at several scales, which
    needs no weights."""
    pixel_weight: Annotated[float, AtLeast(0)] = 1.0
    """vgg16: weight of the mean absolute difference of pixels."""
    perceptual_weight: Annotated[float, AtLeast(0)] = 0.1
    """vgg16: weight of the mean absolute difference at each layer."""
    perceptual_taps: tuple[str, ...] = ("relu1_2", "relu2_2", "relu3_2")
    """vgg16: the layers that are compared. Choose from relu1_2 relu2_2 relu3_2 relu3_3 relu4_3
    pool5."""
    perceptual_scale: Literal["normalized", "raw"] = "normalized"
    """vgg16: divide each layer's difference by its mean activation on the training images, or
    leave it unscaled."""
    perceptual_input: PerceptualInput = "caffe"
    """vgg16: how the weights want their input. caffe: ImageNet mean subtracted, 0-255. imagenet:
    torchvision's mean and standard deviation. unit: RGB in [0, 1], as published."""
    perceptual_weights: Path | None = None
    """vgg16: file of the weights (safetensors or a torch state dict with torchvision's names).
    Without it the weights that go with --perceptual-input are downloaded once."""
    content_decay: Annotated[float, AtLeast(0)] = 1e-4
    """Weight of the penalty on content codes: the mean over the batch of the noisy code's sum of
    squares."""


@dataclass(frozen=True)
class AdamConfig(Checked):
    """Adam and its learning rates."""

    optimizer: Literal["torch", "apex"] = "torch"
    """Fused Adam of the networks. apex needs NVIDIA's apex, built on this machine, and CUDA."""
    lr: Annotated[float, MoreThan(0)] = 2e-3
    """Learning rate of generator and modulation."""
    latent_lr: Annotated[float, MoreThan(0)] = 8e-2
    """Learning rate of the content codes."""
    class_lr: Annotated[float, MoreThan(0)] = 2e-2
    """Learning rate of the class codes."""
    min_lr: Annotated[float, AtLeast(0)] = 1e-5
    """Final value of all three cosine schedules."""
    beta1: Annotated[float, AtLeast(0), Below(1)] = 0.5
    """Decay of Adam's first moment."""
    beta2: Annotated[float, AtLeast(0), Below(1)] = 0.999
    """Decay of Adam's second moment."""
    eps: Annotated[float, MoreThan(0)] = 1e-8
    """Adam's epsilon."""


@dataclass(frozen=True)
class MachineConfig(Checked):
    """Where and how a stage runs."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device to train on. auto: cuda if there is one, then mps (Apple silicon), then cpu."""
    precision: Literal["auto", "float32", "tf32", "bf16"] = "auto"
    """Type of the convolutions. auto: bf16 where the device is fast at it, else float32. tf32:
    float32 with 10 bits of mantissa in products, CUDA only. Fixed once a run has started."""
    kernels: Literal["auto", "reference", "native", "triton"] = "auto"
    """Implementation of the latent tables. reference: plain PyTorch. native: C++ on the CPU.
    triton: CUDA. auto: the fastest that the device has."""
    decoder: Literal["auto", "dali", "pillow"] = "auto"
    """Image decoder for encoded stores. auto: the one that packed the store."""
    store_device: Literal["auto", "cuda", "pinned", "disk"] = "auto"
    """Where the images are kept for a GPU. cuda: on it, as bytes. pinned: in page-locked host
    memory. disk: memory-mapped. auto: the first of these that fits half of the free memory. A CPU
    reads from disk."""
    cache_target_features: bool = False
    """vgg16: compute the features of the training images once and keep them in memory (1.8 MB for
    a 64 px image with the default layers in float32). The losses stay the same."""
    compile: bool = False
    """Compile the step with torch.compile (half a minute at the start)."""
    cuda_graph: bool = False
    """Capture the whole step in a CUDA graph and replay it."""
    threads: Annotated[int, AtLeast(0), Below(1025)] = 0
    """CPU threads. 0: one for each core."""


@dataclass(frozen=True)
class LoggingConfig(Checked):
    """What a stage writes while it runs."""

    log_every: Annotated[int, MoreThan(0)] = 50
    """Steps between lines of stats.jsonl."""
    save_every: Annotated[int, MoreThan(0)] = 500
    """Steps between checkpoints."""
    keep: Annotated[int, MoreThan(0)] = 2
    """Checkpoints of a stage that are kept; older ones are removed."""
    grid_every: Annotated[int, MoreThan(0)] = 500
    """Steps between swap grids."""
    tensorboard: bool = False
    """Also write TensorBoard events to RUN/tensorboard (needs the tensorboard extra)."""


@dataclass(frozen=True)
class StageConfig(Checked):
    """What the configurations of both stages have in common."""

    machine: MachineConfig = field(default_factory=MachineConfig)
    """Where and how it runs."""
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    """What it writes."""
    batch_size: Annotated[int, MoreThan(0)] = 32
    """Images per step."""
    epochs: Annotated[int, MoreThan(0)] = 45
    """Passes over the images. A last partial batch is dropped."""
    steps: Annotated[int, MoreThan(0), Below(MOST_STEPS)] | None = None
    """Number of steps, instead of --epochs."""
    seed: Annotated[int, AtLeast(0), Below(1 << 63)] = 0
    """Seed of the initial weights and codes, the order of the images and the noise."""

    def total_steps(self, num_images: int) -> int:
        """--steps, or the steps of --epochs over `num_images` images.

        Raises:
            ValueError: those of --epochs are too many.
        """
        steps = self.steps or self.epochs * (num_images // self.batch_size)
        if steps >= MOST_STEPS:
            raise ValueError(
                f"--epochs {self.epochs}: {steps:,} steps, must be fewer than {MOST_STEPS:,}"
            )
        return steps


@dataclass(frozen=True)
class TrainConfig(StageConfig):
    """Stage 1: latent optimization. The defaults are those of the `laptop` preset."""

    preset: Preset = "laptop"
    """Defaults of all other flags. laptop: 64 px photographs on a CPU. demo: 32 px glyphs in
    minutes. paper: the published PyTorch settings. a100: paper in bf16, compiled, on CUDA."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Sizes."""
    loss: LossConfig = field(default_factory=LossConfig)
    """What is minimized."""
    adam: AdamConfig = field(default_factory=AdamConfig)
    """How."""


@dataclass(frozen=True)
class EncoderConfig(StageConfig):
    """Stage 2: the encoders. The preset of the run sets the defaults."""

    encoder_dim: Annotated[int, MoreThan(0), Below(MOST_DIM)] = 128
    """Channels of the encoders' last three convolutions and width of their fully connected
    layers, a multiple of 4. The first two convolutions have a quarter and a half of it."""
    content_weight: Annotated[float, AtLeast(0)] = 0.03
    """Weight of the content code's mean squared error (published: 10, for codes that are ten times
    smaller)."""
    class_weight: Annotated[float, AtLeast(0)] = 1.0
    """Weight of the class code's mean squared error (published: 10)."""
    lr: Annotated[float, MoreThan(0)] = 5e-4
    """Learning rate of encoders, generator and modulation."""
    min_lr: Annotated[float, AtLeast(0)] = 1e-5
    """Final value of its cosine schedule."""
    batch_size: Annotated[int, MoreThan(0)] = 64
    """Images per step."""
    epochs: Annotated[int, MoreThan(0)] = 50
    """Passes over the images. A last partial batch is dropped."""
    perceptual_weights: Path | None = None
    """vgg16: file of the weights. Without it the file that the run was trained with."""


def options(config: Checked) -> dict[str, Any]:
    """Every option of a configuration and its groups: name -> value."""
    found: dict[str, Any] = {}
    for name, value in vars(config).items():
        found |= options(value) if isinstance(value, Checked) else {name: value}
    return found


def replace(config: AnyConfig, **changes: Any) -> AnyConfig:
    """A copy with some options changed, each in whichever group holds it.

    Raises:
        ValueError: a value is out of its bounds.
        KeyError: there is no option of that name.
    """
    unknown = set(changes) - set(options(config))
    if unknown:
        raise KeyError(f"no option {', '.join(sorted(unknown))}")
    fields: dict[str, Any] = {}
    for name, value in vars(config).items():
        if isinstance(value, Checked):
            mine = options(value)
            fields[name] = replace(value, **{k: v for k, v in changes.items() if k in mine})
        else:
            fields[name] = changes.get(name, value)
    return dataclasses.replace(config, **fields)  # type: ignore[type-var]


PRESETS: dict[str, TrainConfig] = {"laptop": TrainConfig()}
PRESETS["demo"] = replace(
    PRESETS["laptop"],
    preset="demo",
    content_dim=16,
    class_dim=64,
    adain_dim=32,
    content_decay=3e-5,
    loss="pyramid",
    lr=3e-3,
    steps=7500,
    save_every=1500,
    grid_every=1500,
    log_every=100,
)
PRESETS["paper"] = replace(
    PRESETS["laptop"],
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
)
PRESETS["a100"] = replace(
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
    """Stage 2 of a run: the defaults of its preset, on the machine that stage 1 was set to."""
    preset = ENCODER_PRESETS[config.preset]
    return dataclasses.replace(preset, machine=config.machine, logging=config.logging)
