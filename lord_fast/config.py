"""The options of training and their groups.

Every field is a flag of the command line and a key of the run's config.yaml. Its name is unique
among the groups of a configuration. Options of other commands are defined next to their code, such
as in `lord_fast.data.options`. `lord_fast.presets` has other defaults.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from lord_fast.bounds import AtLeast, Below, Checked, MoreThan, PowerOfTwo, Repeated

Preset = Literal["demo", "laptop", "full", "paper", "a100"]
Recipe = Literal["best", "published"]
LoggerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]
PerceptualInput = Literal["caffe", "imagenet", "unit"]
Switch = Literal["auto", "on", "off"]
"""auto lets a rule choose, see `lord_fast.train.form`."""
AnyConfig = TypeVar("AnyConfig", bound="Checked")
AnyStage = TypeVar("AnyStage", bound="StageConfig")

LEAST_STEPS = 600
"""Smallest number of steps of a stage, unless a flag sets the number of steps or epochs."""
MOST_DIM = 1 << 16
"""Upper bound of the sizes of codes and layers."""
MOST_KNOWN = 4096
"""Largest number of content codes that the content encoder keeps or clusters."""
MOST_STEPS = 100_000_000
"""Upper bound of the number of steps. Memory holds a learning rate and a number for each step."""
MOST_RANKS = 1 << 20
"""Upper bound of the number of virtual ranks."""


class Default(int):
    """A number from a preset that no flag has overridden. `fit_to` adapts it to small data."""

    def __hash__(self) -> int:
        """Differ from the plain number's hash: tyro caches by equal arguments of any type."""
        return hash((Default, int(self)))


@dataclass(frozen=True)
class ModelConfig(Checked):
    """Sizes of the codes and of the generator."""

    content_dim: Annotated[int, MoreThan(0), Below(MOST_DIM)] = 64
    """Length of a content code (one per image)."""
    class_dim: Annotated[int, MoreThan(0), Below(MOST_DIM)] = 128
    """Length of a class code (one per class)."""
    adain_dim: Annotated[int, MoreThan(0), Below(MOST_DIM)] = 64
    """Number of channels of the generator's AdaIN layers. It must be a multiple of 8."""
    leaky_slope: Annotated[float, AtLeast(0)] = 0.01
    """Negative slope of every LeakyReLU."""
    adain_init: Literal["identity", "linear"] = "identity"
    """Initial AdaIN parameters. identity gives every class a scale of 1 and a bias of 0. linear is
    PyTorch's default for a linear layer, as in the published code."""
    content_std: Annotated[float, AtLeast(0)] = 1.0
    """Standard deviation of the Gaussian noise that is added to content codes during training."""
    content_init: Literal["uniform", "statistics"] = "statistics"
    """Initial content codes. uniform draws them from (-0.05, 0.05), as in the published code.
    statistics adds principal components of statistics of the images, minus their mean in the class,
    so that the classes agree on the contents from the first step. This reads all images once. A run
    with --init-from starts new codes as uniform does."""


@dataclass(frozen=True)
class LossConfig(Checked):
    """The reconstruction loss and the penalty on content codes."""

    loss: Literal["vgg16", "pyramid"] = "vgg16"
    """Reconstruction loss. vgg16 compares VGG16 features and pixels. pyramid compares images at
    several scales and needs no pretrained weights."""
    pixel_weight: Annotated[float, AtLeast(0)] = 1.0
    """Weight of the mean absolute difference of pixels (only for vgg16)."""
    perceptual_weight: Annotated[float, AtLeast(0)] = 0.1
    """Weight of the mean absolute difference at each layer (only for vgg16)."""
    perceptual_taps: tuple[str, ...] = ("relu1_2", "relu2_2", "relu3_2")
    """Layers to compare (only for vgg16). Choose from relu1_2, relu2_2, relu3_2, relu3_3, relu4_3,
    relu5_3 and pool5."""
    perceptual_scale: Literal["normalized", "raw"] = "normalized"
    """Scale of each layer's difference (only for vgg16). normalized divides it by the layer's mean
    activation on the training images. raw leaves it unscaled."""
    perceptual_input: PerceptualInput = "caffe"
    """Input that the weights expect (only for vgg16). caffe subtracts the ImageNet mean from values
    in 0-255. imagenet uses torchvision's mean and standard deviation. unit is RGB in [0, 1], as in
    the published code."""
    perceptual_weights: Path | None = None
    """File of VGG16 weights, safetensors or a torch state dict with torchvision's names (only for
    vgg16). If not given, the weights for --perceptual-input are downloaded once."""
    content_decay: Annotated[float, AtLeast(0)] = 1e-4
    """Weight of the penalty on content codes, which is the squared norm of the noisy code, averaged
    over the batch."""
    content_discrepancy: Annotated[float, AtLeast(0)] = 0.5
    """Weight of the penalty on content codes that tell the class. It compares the codes of a batch
    with up to 4,096 codes of earlier batches, by the maximum mean discrepancy between the codes of
    a class and those of other classes. The published code has no such penalty."""


@dataclass(frozen=True)
class AdamConfig(Checked):
    """Adam and its learning rates."""

    optimizer: Literal["torch", "apex"] = "torch"
    """Implementation of fused Adam for the networks. apex requires CUDA and NVIDIA's apex, which
    must be built on this machine."""
    lr: Annotated[float, MoreThan(0)] = 2e-3
    """Initial learning rate of generator and modulation."""
    latent_lr: Annotated[float, MoreThan(0)] = 8e-2
    """Initial learning rate of the content codes."""
    class_lr: Annotated[float, MoreThan(0)] = 2e-2
    """Initial learning rate of the class codes."""
    min_lr: Annotated[float, AtLeast(0)] = 1e-5
    """Final learning rate of all three cosine schedules."""
    warmup_steps: Annotated[int, AtLeast(0)] = 0
    """Number of first steps in which the learning rate of generator and modulation rises linearly
    to that of the schedule. The codes have no warm-up."""
    beta1: Annotated[float, AtLeast(0), Below(1)] = 0.5
    """Decay rate of Adam's first moment."""
    beta2: Annotated[float, AtLeast(0), Below(1)] = 0.999
    """Decay rate of Adam's second moment."""
    eps: Annotated[float, MoreThan(0)] = 1e-8
    """Adam's epsilon, which is added to the denominator."""


@dataclass(frozen=True)
class MachineConfig(Checked):
    """Device, precision and other settings of the machine."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device to train on. auto prefers cuda, then mps (Apple silicon), then cpu."""
    precision: Literal["auto", "float32", "tf32", "bf16"] = "auto"
    """Precision of the convolutions. auto selects bf16 if it is fast on the device, else float32.
    tf32 is float32 with products of 10 mantissa bits and requires CUDA. A run keeps its precision
    when it resumes."""
    kernels: Literal["auto", "reference", "native", "triton"] = "auto"
    """Implementation of the latent tables and of the AdaIN layers. reference is plain PyTorch,
    native is C++ for the CPU, and triton is for CUDA. auto selects the fastest that the device
    supports."""
    decoder: Literal["auto", "dali", "pillow"] = "auto"
    """Image decoder for stores that were packed with --encoded. auto selects the decoder that
    packed the store."""
    store_device: Literal["auto", "cuda", "pinned", "disk"] = "auto"
    """Location of the images during training on a GPU. cuda keeps them in GPU memory, pinned in
    page-locked host memory, and disk reads them from a memory-mapped file. auto selects the first
    of these that takes at most half of the free memory. Training on a CPU always uses disk."""
    table_device: Literal["auto", "cuda", "pinned", "disk"] = "auto"
    """Location of the content codes and their Adam moments during stage 1. cuda keeps them in GPU
    memory, pinned in host memory, and disk in a scratch file, of which the rows of the next steps
    are read ahead. auto selects the first of these that takes at most half of the free memory. When
    training on a CPU it selects memory by the same rule, else disk. The result is the same."""
    table_folder: Path | None = None
    """Folder for the scratch file of --table-device disk. Choose a fast local disk. The default is
    the run's folder."""
    cache_target_features: Switch = "auto"
    """Compute the VGG16 features of all training images once and keep them in memory (only for
    vgg16). This takes 1.8 MB per 64 px image with the default layers in float32. The losses stay
    the same up to rounding. auto does it if they take at most a quarter of the free memory. A run
    keeps its choice when it resumes."""
    compile: Switch = "auto"
    """Compile the training step with torch.compile, which takes half a minute at the start. auto
    does it where training is long enough to repay this. A run keeps its choice when it resumes."""
    cuda_graph: Switch = "auto"
    """Capture the training step as a CUDA graph and replay it, which saves launch time. auto does
    it on CUDA, unless the first replays differ from the uncaptured step."""
    cudnn_benchmark: Switch = "auto"
    """Let cuDNN time its algorithms and use the fastest. auto does it on CUDA. A run keeps its
    choice when it resumes."""
    threads: Annotated[int, AtLeast(0), Below(1025)] = 0
    """Number of CPU threads. 0 uses one for each core, shared by the processes of a machine."""
    timeout: Annotated[float, MoreThan(0), Below(1e6)] = 60.0
    """Seconds that a process waits for another one in training with several processes."""


@dataclass(frozen=True)
class LoggingConfig(Checked):
    """Logs, checkpoints and grids that training writes."""

    log_every: Annotated[int, MoreThan(0)] = 50
    """Number of steps between lines of stats.jsonl."""
    save_every: Annotated[int, MoreThan(0)] = 500
    """Number of steps between checkpoints."""
    keep: Annotated[int, MoreThan(0)] = 2
    """Number of checkpoints to keep for each stage. Older ones are removed."""
    grid_every: Annotated[int, MoreThan(0)] = 500
    """Number of steps between swap grids, which are pictures in RUN/grids."""
    tensorboard: bool = False
    """The same as --logger tensorboard."""
    logger: Annotated[tuple[LoggerName, ...], Repeated()] = ()
    """Also send figures, grids and options to a tool. Repeat the flag for several. Each requires
    the extra of its name. tensorboard writes to RUN/tensorboard. The others are set up by their own
    environment variables, such as WANDB_MODE=offline and MLFLOW_TRACKING_URI."""


@dataclass(frozen=True)
class StageConfig(Checked):
    """The options that both stages share."""

    machine: MachineConfig = field(default_factory=MachineConfig)
    """Settings of the machine."""
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    """Settings of logs and checkpoints."""
    batch_size: Annotated[int, MoreThan(0)] = Default(32)
    """Images per step. The default is at most half of the images."""
    epochs: Annotated[int, MoreThan(0)] = Default(45)
    """Passes over the images. A last partial batch is dropped. If the default gives fewer than 600
    steps, 600 steps are trained."""
    steps: Annotated[int, MoreThan(0), Below(MOST_STEPS)] | None = None
    """Number of steps. It overrides --epochs. A larger number extends a finished run."""
    extended_from: tuple[int, ...] = ()
    """Earlier lengths of an extended run in steps. Training sets this option itself."""
    virtual_ranks: Annotated[int, PowerOfTwo(), Below(MOST_RANKS)] = Default(1)
    """Number of parts of the images and content codes, which the processes of torchrun share. The
    result depends on it and not on the number of processes. Must be a power of two. The default is
    the number of processes at the start."""
    seed: Annotated[int, AtLeast(0), Below(1 << 63)] = 0
    """Seed of the initial weights and codes, of the order of the images and of the noise."""

    def total_steps(self, num_images: int) -> int:
        """Return --steps if given, else the number of steps of --epochs over the images.

        Raises:
            ValueError: --epochs gives too many steps.
        """
        steps = self.steps or self.epochs * (num_images // self.batch_size)
        if steps >= MOST_STEPS:
            raise ValueError(
                f"--epochs {self.epochs}: {steps:,} steps, must be fewer than {MOST_STEPS:,}"
            )
        return steps


@dataclass(frozen=True)
class TrainConfig(StageConfig):
    """Options of stage 1 (latent optimization). The defaults are those of the `laptop` preset."""

    preset: Preset = "laptop"
    """Selects the defaults of all other flags. laptop suits 64 px photographs on a CPU. full has
    the same recipe and the published sizes, which suit a GPU. demo suits 32 px glyphs and takes
    minutes. paper has the sizes and the recipe of the published PyTorch code. At 128 and 256 px
    the network of full and paper is larger than the published one. a100 is paper with --device
    cuda --precision bf16 --compile on."""
    recipe: Recipe = "best"
    """Selects the defaults of the losses, learning rates and initial weights, of the batch size and
    of the epochs, for both stages. published has those of the published PyTorch code. best has
    those of laptop. The default is the preset's recipe, which is published for paper and a100."""
    init_from: Path | None = None
    """Another run to start from. Its networks are copied, and its codes too if it was trained on
    the same images. Adam and the learning rates start again."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Sizes of codes and networks."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Settings of the loss."""
    adam: AdamConfig = field(default_factory=AdamConfig)
    """Settings of the optimizer."""


@dataclass(frozen=True)
class EncoderConfig(StageConfig):
    """Options of stage 2 (the encoders). The preset of the run sets the defaults."""

    encoder_dim: Annotated[int, MoreThan(0), Below(MOST_DIM)] = 64
    """Width of the encoders' fully connected layers and number of channels of their last three
    convolutions. It must be a multiple of 4. The first two convolutions have a quarter and a half
    of it."""
    encoder_init: Literal["kaiming", "linear"] = "kaiming"
    """Initial weights of the encoders. kaiming keeps the scale of activations from layer to layer
    and starts at the mean and standard deviation of the codes. linear is PyTorch's default, as in
    the published code."""
    reconstruction_weight: Annotated[float, AtLeast(0)] = 0.0
    """Weight of the reconstruction loss, which fine-tunes the decoder. 0 keeps the decoder of
    stage 1. The published value is 1."""
    swaps: Annotated[int, AtLeast(0), Below(MOST_DIM)] = 1
    """Number of generated images for each image of a batch. Each has the content code of one image
    and the class code of another, and the encoders must predict both codes. The published value is
    0."""
    class_cross_entropy: Annotated[float, AtLeast(0)] = 0.0
    """Weight of the cross-entropy of the class among the known class codes (only with
    --class-bandwidth). The published code has no such loss."""
    class_bandwidth: Annotated[float, AtLeast(0)] = 0.0
    """Replaces a predicted class code by a mean of the class codes of training. The weights are a
    Gaussian kernel of this standard deviation, in units of the root mean square distance of the
    codes from their mean. 0 keeps the prediction, as in the published code."""
    content_bandwidth: Annotated[float, AtLeast(0)] = 0.1
    """The same for content codes, with at most 4,096 content codes of training. The published value
    is 0."""
    content_codebook: Annotated[int, AtLeast(0), Below(MOST_KNOWN + 1)] = 0
    """Number of content codes that images can have. They are the centres of k-means clusters of at
    most 4,096 content codes of training. A preset's number is at most half of the images. 0 uses no
    codebook, as in the published code. Any other number needs --content-bandwidth 0."""
    content_candidates: Annotated[int, MoreThan(0), Below(MOST_KNOWN + 1)] = Default(16)
    """Number of codes of the codebook that are decoded for an image. They are the nearest to the
    prediction. The image gets the one with the smallest mean squared error (only with
    --content-codebook)."""
    content_weight: Annotated[float, AtLeast(0)] = 0.03
    """Weight of the content code's mean squared error. The published value is 10, for codes that
    are ten times smaller."""
    class_weight: Annotated[float, AtLeast(0)] = 1.0
    """Weight of the class code's mean squared error. The published value is 10."""
    lr: Annotated[float, MoreThan(0)] = 2e-3
    """Initial learning rate of encoders, generator and modulation."""
    min_lr: Annotated[float, AtLeast(0)] = 1e-5
    """Final learning rate of the cosine schedule."""
    batch_size: Annotated[int, MoreThan(0)] = Default(32)
    """Images per step. The default is at most half of the images."""
    epochs: Annotated[int, MoreThan(0)] = Default(50)
    """Passes over the images. A last partial batch is dropped. If the default gives fewer than 600
    steps, 600 steps are trained."""
    perceptual_weights: Path | None = None
    """File of VGG16 weights (only for vgg16). Defaults to the file of stage 1."""


def options(config: Checked) -> dict[str, Any]:
    """Return all options of a configuration and its groups by name."""
    found: dict[str, Any] = {}
    for name, value in vars(config).items():
        found |= options(value) if isinstance(value, Checked) else {name: value}
    return found


def replace(config: AnyConfig, **changes: Any) -> AnyConfig:
    """Return a copy with some options changed, including options of groups.

    Raises:
        ValueError: A value is out of bounds.
        KeyError: An option does not exist.
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


def fit_to(config: AnyStage, num_images: int) -> AnyStage:
    """Adapt the default batch size, number of epochs and codebook to the number of images.

    A default batch has at most half of the images, because small data needs many steps. If the
    default epochs give fewer than `LEAST_STEPS` steps, this number of steps is used instead. Values
    from flags and files do not change.

    Raises:
        ValueError: A batch size from a flag or file is larger than the number of images, or no
            multiple of the virtual ranks.
    """
    batch, steps, ranks = config.batch_size, config.steps, int(config.virtual_ranks)
    if isinstance(batch, Default):
        batch = max(min(int(batch), max(1, num_images // 2)) // ranks, 1) * ranks
    if batch % ranks:
        raise ValueError(
            f"--batch-size {batch}: must be a multiple of --virtual-ranks {ranks}; use "
            f"{max(batch // ranks, 1) * ranks}"
        )
    if batch > num_images:
        raise ValueError(
            f"{num_images} images are fewer than one batch of {batch}; "
            f"use --batch-size {num_images} or less"
        )
    if steps is None and isinstance(config.epochs, Default):
        of_epochs = config.epochs * (num_images // batch)
        steps = LEAST_STEPS if of_epochs < LEAST_STEPS else None
    changes = {
        "batch_size": batch, "epochs": int(config.epochs), "steps": steps, "virtual_ranks": ranks,
    }  # fmt: skip
    if isinstance(config, EncoderConfig):
        changes |= _fit_codebook(config, num_images)
    return replace(config, **changes)


def _fit_codebook(config: EncoderConfig, num_images: int) -> dict[str, int]:
    """Adapt a default codebook to few images, and a default number of candidates to the codebook.

    With a centre for each image, the centres would tell the class as the codes do.
    """
    size, candidates = config.content_codebook, config.content_candidates
    if isinstance(size, Default):
        size = min(size, max(1, num_images // 2))
    if isinstance(candidates, Default) and size:
        candidates = min(candidates, size)
    return {"content_codebook": int(size), "content_candidates": int(candidates)}
