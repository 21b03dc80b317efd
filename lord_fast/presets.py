"""The presets of both stages. A preset has a size, a recipe and, for a100, a machine.

A recipe says what is learnt. Of its values only the learning rate of the networks depends on the
size.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, get_args

from lord_fast.config import (
    Default,
    EncoderConfig,
    Recipe,
    TrainConfig,
    options,
    replace,
)

PUBLISHED: dict[str, Any] = {
    "recipe": "published",
    "adain_init": "linear",
    "content_init": "uniform",
    "loss": "vgg16",
    "perceptual_weight": 1.0,
    "perceptual_taps": ("relu1_2", "relu2_2", "relu3_2", "relu4_3", "pool5"),
    "perceptual_scale": "raw",
    "perceptual_input": "unit",
    "content_decay": 1e-4,
    "content_discrepancy": 0.0,
    "lr": 3e-4,
    "latent_lr": 3e-3,
    "class_lr": 3e-3,
    "warmup_steps": 0,
    "beta1": 0.5,
    "steps": None,
    "batch_size": Default(128),
    "epochs": Default(200),
}
"""The published recipe of stage 1. The defaults of `TrainConfig` are the recipe `best`."""
FULL = {"content_dim": 128, "class_dim": 256, "adain_dim": 256}
"""The published sizes of stage 1."""

PRESETS: dict[str, TrainConfig] = {"laptop": TrainConfig()}
# At this width training fails with the learning rate of laptop (docs/start.md).
PRESETS["full"] = replace(PRESETS["laptop"], preset="full", lr=5e-4, **FULL)
PRESETS["demo"] = replace(
    PRESETS["laptop"],
    preset="demo",
    content_dim=16,
    class_dim=64,
    adain_dim=32,
    content_decay=3e-5,
    content_discrepancy=0.03,
    loss="pyramid",
    lr=3e-3,
    # Without warm-up the images of 2 in 26 seeds become constant within 50 steps.
    warmup_steps=100,
    beta1=0.9,
    steps=6000,
    save_every=1500,
    grid_every=1500,
    log_every=100,
)
PRESETS["paper"] = replace(PRESETS["full"], preset="paper", **PUBLISHED)
PRESETS["a100"] = replace(
    PRESETS["paper"], preset="a100", precision="bf16", compile="on", device="cuda"
)

ENCODER_PRESETS: dict[str, EncoderConfig] = {
    "laptop": EncoderConfig(),
    "full": EncoderConfig(encoder_dim=256, lr=5e-4),
    "demo": EncoderConfig(
        class_cross_entropy=1.0,
        class_bandwidth=0.25,
        content_bandwidth=0.0,
        content_codebook=Default(128),
        epochs=Default(12),
    ),
    "paper": EncoderConfig(
        encoder_init="linear",
        reconstruction_weight=1.0,
        swaps=0,
        content_bandwidth=0.0,
        content_weight=10.0,
        class_weight=10.0,
        encoder_dim=256,
        lr=1e-4,
        batch_size=Default(128),
        epochs=Default(200),
    ),
}
ENCODER_PRESETS["a100"] = ENCODER_PRESETS["paper"]


def train_defaults(preset: str, recipe: str | None = None) -> TrainConfig:
    """Return the defaults of stage 1.

    Args:
        preset: Selects the sizes, the machine and, without `recipe`, the recipe.
        recipe: Replaces the recipe of the preset if it is another one.

    Raises:
        ValueError: There is no such preset or recipe.
    """
    _check("preset", preset, PRESETS)
    found = PRESETS[preset]
    if recipe in (None, found.recipe):
        return found
    _check("recipe", recipe, get_args(Recipe))
    other = options(PRESETS[_of_recipe(preset, recipe)])
    return replace(found, **{name: other[name] for name in PUBLISHED})


def _of_recipe(preset: str, recipe: str) -> str:
    """Return the preset that has a recipe as its own, of the same size if there is one."""
    if recipe == "published":
        return "paper"
    return "full" if preset in ("paper", "a100") else "laptop"


def _check(what: str, name: Any, known: Iterable[str]) -> None:
    if name not in tuple(known):  # A value from a file may be no key of a dict.
        raise ValueError(f"{what}: {name!r} is none of {', '.join(known)}")


def encoder_defaults(config: TrainConfig) -> EncoderConfig:
    """Return the defaults of stage 2, from the preset, recipe, machine and ranks of stage 1."""
    found = ENCODER_PRESETS[config.preset]
    if config.recipe != PRESETS[config.preset].recipe:
        other = ENCODER_PRESETS[_of_recipe(config.preset, config.recipe)]
        found = replace(other, encoder_dim=found.encoder_dim)
    ranks = Default(config.virtual_ranks)
    return dataclasses.replace(
        found, machine=config.machine, logging=config.logging, virtual_ranks=ranks
    )
