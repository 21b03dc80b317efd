"""What a bench measures: a field is a flag of `lord-fast bench`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from lord_fast.bounds import AtLeast, Below, Checked, MoreThan

What = Literal["step", "latent", "data", "train"]


@dataclass(frozen=True)
class BenchConfig(Checked):
    """What a bench measures and where its figures go."""

    json: Path | None = None
    """Also write the figures to this file."""
    plot: Path | None = None
    """Also draw the figures to this file, a PNG."""
    batch_size: Annotated[int, MoreThan(0)] = 64
    """step, train: images per step."""
    size: Annotated[int, MoreThan(0)] = 64
    """step, train: side of the images in pixels."""
    adain_dim: Annotated[int, MoreThan(0)] = 256
    """step, train: channels of the generator."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """train: type of our convolutions. auto: as in training."""
    steps: Annotated[int, MoreThan(0), Below(1_000_001)] = 300
    """train: number of steps."""
    scaling: bool = True
    """step: also measure over the number of images and classes, as far as the memory goes."""
    threads: Annotated[int, AtLeast(0), Below(1025)] = 0
    """CPU threads. 0: one for each core."""
