"""The presets of both stages. A preset has a size, a recipe and, for a100, a machine.

A recipe says what is learnt and does not depend on the sizes of codes and networks.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

from lord_fast.config import (
    Default,
    EncoderConfig,
    Preset,
    Recipe,
    TrainConfig,
    options,
    replace,
)

PUBLISHED: dict[str, Any] = {
    "recipe": "published",
    "adain_init": "linear",
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
    "steps": None,
    "batch_size": Default(128),
    "epochs": Default(200),
}
"""The published recipe of stage 1. The defaults of `TrainConfig` are the recipe `best`."""
FULL = {"content_dim": 128, "class_dim": 256, "adain_dim": 256}
"""The published sizes of stage 1."""

PRESETS: dict[str, TrainConfig] = {"laptop": TrainConfig()}
PRESETS["full"] = replace(PRESETS["laptop"], preset="full", **FULL)
PRESETS["demo"] = replace(
    PRESETS["laptop"],
    preset="demo",
    content_dim=16,
    class_dim=64,
    adain_dim=32,
    content_decay=3e-5,
    content_discrepancy=0.0,
    loss="pyramid",
    lr=3e-3,
    steps=7500,
    save_every=1500,
    grid_every=1500,
    log_every=100,
)
PRESETS["paper"] = replace(PRESETS["full"], preset="paper", **PUBLISHED)
PRESETS["a100"] = replace(
    PRESETS["paper"], preset="a100", precision="bf16", compile="on", device="cuda"
)

ENCODER_RECIPES: dict[Recipe, EncoderConfig] = {
    "best": EncoderConfig(),
    "published": EncoderConfig(
        encoder_init="linear",
        reconstruction_weight=1.0,
        swaps=0,
        content_bandwidth=0.0,
        content_weight=10.0,
        class_weight=10.0,
        lr=1e-4,
        batch_size=Default(128),
        epochs=Default(200),
    ),
}
"""The recipes of stage 2."""
FULL_ENCODER_DIM = 256
"""The published width of the encoders."""
ENCODER_PRESETS: dict[str, EncoderConfig] = {
    "laptop": ENCODER_RECIPES["best"],
    "full": replace(ENCODER_RECIPES["best"], encoder_dim=FULL_ENCODER_DIM),
    "demo": EncoderConfig(
        class_cross_entropy=1.0,
        class_bandwidth=0.25,
        content_bandwidth=0.2,
        epochs=Default(12),
    ),
    "paper": replace(ENCODER_RECIPES["published"], encoder_dim=FULL_ENCODER_DIM),
}
ENCODER_PRESETS["a100"] = ENCODER_PRESETS["paper"]


def train_defaults(preset: Preset, recipe: Recipe | None = None) -> TrainConfig:
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
    _check("recipe", recipe, ENCODER_RECIPES)
    best = options(PRESETS["laptop"])
    values = PUBLISHED if recipe == "published" else {name: best[name] for name in PUBLISHED}
    return replace(found, **values)


def _check(what: str, name: Any, known: Iterable[str]) -> None:
    if name not in known:
        raise ValueError(f"{what}: {name!r} is none of {', '.join(known)}")


def encoder_defaults(config: TrainConfig) -> EncoderConfig:
    """Return the defaults of stage 2, from the preset, recipe, machine and ranks of stage 1."""
    found = ENCODER_PRESETS[config.preset]
    if config.recipe != PRESETS[config.preset].recipe:
        found = replace(ENCODER_RECIPES[config.recipe], encoder_dim=found.encoder_dim)
    ranks = Default(config.virtual_ranks)
    return dataclasses.replace(
        found, machine=config.machine, logging=config.logging, virtual_ranks=ranks
    )
