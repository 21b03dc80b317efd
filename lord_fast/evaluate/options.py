"""The options of `lord-fast evaluate`. Every field is a flag."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from lord_fast.bounds import AtLeast, Below, Checked, MoreThan


@dataclass(frozen=True)
class EvaluateConfig(Checked):
    """The options of `lord-fast evaluate`."""

    store: Path | None = None
    """Store to evaluate. Defaults to the run's store. With --codes latent, give the run's store if
    it has moved, or a store of held-out images of the same classes. With --codes encoder, give any
    store with images of the same size. With --codes fit, give a store of held-out classes."""
    codes: Literal["latent", "encoder", "fit"] = "latent"
    """Codes to evaluate. latent measures the codes of stage 1 and writes RUN/metrics.json, or
    RUN/metrics-STORE.json for held-out images. encoder measures the codes that the encoders of
    stage 2 predict and writes RUN/metrics-encoder.json, or RUN/metrics-encoder-STORE.json for
    another store. fit fits a class code to a few images of each new class, combines it with
    contents of training and writes RUN/metrics-fit-STORE.json."""
    perceptual_weights: Path | None = None
    """File of VGG16 weights for the perceptual distance and for samples. Defaults to the weights of
    the run. A run with --loss pyramid has no weights, so both are left out by default."""
    perceptual_input: Literal["caffe", "imagenet", "unit"] | None = None
    """Input that the weights expect, see lord-fast train --help. Defaults to the setting of the
    run."""
    shots: Annotated[int, MoreThan(0)] = 5
    """Number of images of each new class to fit its code to (only for --codes fit)."""
    fit_steps: Annotated[int, MoreThan(0)] = 300
    """Number of optimization steps of each fit (only for --codes fit)."""
    circular: tuple[str, ...] = ()
    """Numeric content factors that lie on a circle, each with its period, such as angle=360. Their
    regression predicts sine and cosine. The other numeric factors are predicted as numbers."""
    seed: Annotated[int, AtLeast(0), Below(1 << 32)] = 0
    """Seed of the random draws and of the probes."""
