"""What evaluate measures: a field is a flag of `lord-fast evaluate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from lord_fast.bounds import AtLeast, Below, Checked, MoreThan


@dataclass(frozen=True)
class EvaluateConfig(Checked):
    """What evaluate measures."""

    store: Path | None = None
    """latent: where the run's store is now, if it has moved, or images held out of the same
    classes; encoder: any store of the same size, such as images held out (default: the run's);
    fit: classes held out."""
    codes: Literal["latent", "encoder", "fit"] = "latent"
    """latent: the codes that training optimized (RUN/metrics.json), or what they make of
    combinations held out (RUN/metrics-STORE.json); encoder: those that the
    encoders predict (RUN/metrics-encoder[-STORE].json); fit: new classes, a class code fitted to
    a few images of each, with contents of training (RUN/metrics-fit-STORE.json)."""
    perceptual_weights: Path | None = None
    """VGG16 weights for perceptual distance and samples; none: those of the run; a run with --loss
    pyramid has none, and the two are left out."""
    perceptual_input: Literal["caffe", "imagenet", "unit"] | None = None
    """The convention of these weights, as for train; none: the run's, which is caffe if it was
    trained with --loss pyramid and nothing else was said."""
    shots: Annotated[int, MoreThan(0)] = 5
    """fit: images of each new class that its code is made from."""
    fit_steps: Annotated[int, MoreThan(0)] = 300
    """fit: steps of each optimization."""
    seed: Annotated[int, AtLeast(0), Below(1 << 63)] = 0
    """Of every draw and of the probes."""
