"""The options of `lord-fast bench`. Every field is a flag."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from lord_fast.bounds import AtLeast, Below, Checked, MoreThan

What = Literal["step", "latent", "data", "train"]


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
    """Precision of lord-fast's convolutions (only for train). auto selects it as training does."""
    steps: Annotated[int, MoreThan(0), Below(1_000_001)] = 300
    """Number of steps (only for train)."""
    scaling: bool = True
    """Also measure larger numbers of images and classes as far as memory allows (only for step)."""
    threads: Annotated[int, AtLeast(0), Below(1025)] = 0
    """Number of CPU threads. 0 uses one for each core."""
