"""Builds the networks, tables and losses of a configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lord_fast.config import EncoderConfig, TrainConfig
from lord_fast.kernels import Adam
from lord_fast.model.encoder import Encoders
from lord_fast.model.generator import Decoder
from lord_fast.model.latent import LatentTable, StoredCodes
from lord_fast.model.perceptual import TAPS, VGG16, PerceptualLoss, PyramidLoss, load_weights
from lord_fast.model.schedule import extended_cosine


def build_decoder(config: TrainConfig, size: int, channels: int) -> Decoder:
    """Build the modulation and the generator, initialized from the configuration's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        sizes = config.model
        return Decoder(
            sizes.content_dim, sizes.class_dim, sizes.adain_dim, size, channels,
            sizes.leaky_slope, sizes.adain_init,
        )  # fmt: skip


def build_encoders(
    config: EncoderConfig, run_config: TrainConfig, size: int, channels: int
) -> Encoders:
    """Build the encoders of a run, initialized from the seed of stage 2."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        sizes = run_config.model
        return Encoders(
            sizes.content_dim, sizes.class_dim, config.encoder_dim, size, channels,
            sizes.leaky_slope,
        )  # fmt: skip


def build_tables(
    config: TrainConfig, num_images: int, num_classes: int, steps: int, device: torch.device
) -> tuple[LatentTable, LatentTable]:
    """Build the content table and the class table with their initial codes."""
    content, class_ = _table_settings(config, steps)
    std = config.model.content_std
    return (
        LatentTable(num_images, std=std, device=device, **content),
        LatentTable(num_classes, device=device, **class_),
    )


def _table_settings(config: TrainConfig, steps: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of the content table and of the class table."""
    sizes, rates = config.model, config.adam
    adam = Adam(rates.beta1, rates.beta2, rates.eps)
    content_lr, class_lr = (
        extended_cosine(lr, rates.min_lr, (*config.extended_from, steps))
        for lr in (rates.latent_lr, rates.class_lr)
    )
    return (
        {"dim": sizes.content_dim, "lr": content_lr, "adam": adam, "seed": config.seed},
        {"dim": sizes.class_dim, "lr": class_lr, "adam": adam, "seed": config.seed + 1},
    )


def build_loss(config: TrainConfig, weights: Path | None = None) -> PerceptualLoss | PyramidLoss:
    """Build the reconstruction loss of a configuration.

    Args:
        config: The run's configuration.
        weights: File with VGG16 weights that replaces the one of the configuration.

    Raises:
        ValueError: See `build_vgg`.
    """
    if config.loss.loss == "pyramid":
        return PyramidLoss()
    vgg = build_vgg(config, weights or config.loss.perceptual_weights)
    return PerceptualLoss(vgg, config.loss.pixel_weight, config.loss.perceptual_weight)


def build_vgg(
    config: TrainConfig, weights: Path | None, taps: tuple[str, ...] | None = None
) -> VGG16:
    """Build the VGG16 features of a configuration.

    Args:
        config: The run's configuration. Its `perceptual_input` must fit the weights.
        weights: File with the weights. None downloads them.
        taps: Names of the tapped layers. Defaults to those of the configuration.

    Raises:
        ValueError: A tap is unknown, or the weights cannot be loaded (see `load_weights`).
    """
    taps = config.loss.perceptual_taps if taps is None else taps
    unknown = set(taps) - set(TAPS)
    if unknown or not taps:
        raise ValueError(f"--perceptual-taps {' '.join(taps)}: choose from {' '.join(TAPS)}")
    loaded = load_weights(weights, config.loss.perceptual_input)
    return VGG16(loaded, taps, config.loss.perceptual_input)


class SavedRows(Protocol):
    """A latent table of a checkpoint, see `run.saved.SavedTable`."""

    def load_into(self, shards: Mapping[int, StoredCodes]) -> None:
        """Write the rows of shards."""
        ...


def stored_codes(
    tables: Mapping[str, SavedRows],
    step: int,
    config: TrainConfig,
    num_images: int,
    num_classes: int,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """The codes of a stage-1 checkpoint, without noise.

    Args:
        tables: The checkpoint's tables.
        step: Number of training steps of the checkpoint.
        config: The run's configuration.
        num_images: Rows of the content table.
        num_classes: Rows of the class table.
        device: Device of the codes.

    Returns:
        Content codes, float32 [num_images, content_dim], and class codes, float32
        [num_classes, class_dim].
    """
    content, class_ = _table_settings(config, config.total_steps(num_images))
    images = StoredCodes(num_images, step=step, device=device, **content)
    classes = StoredCodes(num_classes, step=step, device=device, **class_)
    tables["content"].load_into({0: images})
    tables["class"].load_into({0: classes})
    return images.codes, classes.codes
