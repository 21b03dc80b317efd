"""The options of `lord-fast bench`. Every field is a flag."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from lord_fast.bounds import AtLeast, Below, Checked, MoreThan

What = Literal["step", "latent", "data", "train", "quality"]
PublishedCode = Literal["pytorch", "tensorflow"]


@dataclass(frozen=True)
class BenchConfig(Checked):
    """The options of `lord-fast bench`."""

    json: Path | None = None
    """Also write the results to this JSON file."""
    plot: Path | None = None
    """Also plot the results in this PNG file."""
    batch_size: Annotated[int, MoreThan(0)] = 64
    """Images per step (only for step and train)."""
    size: Annotated[int, MoreThan(0)] = 64
    """Side of the images in pixels (only for step and train)."""
    adain_dim: Annotated[int, MoreThan(0)] = 256
    """Number of channels of the generator's AdaIN layers (only for step and train)."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Precision of lord-fast's convolutions (only for train and quality). auto selects it as
    training does."""
    steps: Annotated[int, MoreThan(0), Below(1_000_001)] = 300
    """Number of steps (only for train)."""
    scaling: bool = True
    """Also measure larger numbers of images and classes as far as memory allows (only for step)."""
    arms: tuple[str, ...] = ("demo",)
    """Presets or YAML files of options as for train --config (only for quality). They are compared
    with the published recipe, which is always measured."""
    published: PublishedCode = "pytorch"
    """Published code whose recipe is compared (only for quality). pytorch needs torchvision's VGG16
    weights. tensorflow needs the Caffe weights, as the code behind the paper's figures did."""
    seconds: Annotated[float, MoreThan(0), Below(1e7)] = 600.0
    """Seconds of training for each arm, without evaluation (only for quality)."""
    points: Annotated[int, AtLeast(2), Below(10_001)] = 10
    """Number of measurements of each arm (only for quality). Their times are a geometric sequence
    from 1/64 of the seconds."""
    seeds: Annotated[int, MoreThan(0), Below(10_001)] = 1
    """Number of trainings of each arm (only for quality)."""
    store: Path | None = None
    """Store of RGB images of at most 64 px with content labels (only for quality). Defaults to the
    glyphs of the demo at 32 px."""
    perceptual_weights: Path | None = None
    """File of torchvision's VGG16 weights (IMAGENET1K_V1), for the published PyTorch recipe with
    its LPIPS, paper and a100 (only for quality). By default they are downloaded once."""
    caffe_weights: Path | None = None
    """File of VGG16 weights in Caffe's form, for the published TensorFlow recipe with its LPIPS,
    laptop and full (only for quality). By default they are downloaded once."""
    threads: Annotated[int, AtLeast(0), Below(1025)] = 0
    """Number of CPU threads. 0 uses one for each core."""
