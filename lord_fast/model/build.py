"""Builds the networks, tables and losses of a configuration."""

from pathlib import Path

import torch
from torch import Tensor

from lord_fast.config import EncoderConfig, TrainConfig
from lord_fast.kernels import Adam
from lord_fast.model.encoder import Encoders
from lord_fast.model.generator import Decoder
from lord_fast.model.latent import LatentTable
from lord_fast.model.perceptual import TAPS, VGG16, PerceptualLoss, PyramidLoss, load_weights
from lord_fast.model.schedule import extended_cosine

MOST_KNOWN = 4096
"""Largest number of content codes that the content encoder keeps."""


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
    config: EncoderConfig,
    run_config: TrainConfig,
    size: int,
    channels: int,
    counts: tuple[int, int],
) -> Encoders:
    """Build the encoders of a run, initialized from the seed of stage 2.

    Args:
        config: The configuration of stage 2.
        run_config: The configuration of stage 1.
        size: Side of the images in pixels.
        channels: Channels of the images.
        counts: Numbers of images and classes of the run's store.
    """
    known = (
        min(counts[0], MOST_KNOWN) if config.content_bandwidth else 0,
        counts[1] if config.class_bandwidth else 0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        sizes = run_config.model
        return Encoders(
            sizes.content_dim, sizes.class_dim, config.encoder_dim, size, channels,
            sizes.leaky_slope, known,
        )  # fmt: skip


def build_tables(
    config: TrainConfig, num_images: int, num_classes: int, steps: int, device: torch.device
) -> tuple[LatentTable, LatentTable]:
    """Build the content table and the class table with their initial codes."""
    content_lr, class_lr = (
        extended_cosine(lr, config.adam.min_lr, (*config.extended_from, steps))
        for lr in (config.adam.latent_lr, config.adam.class_lr)
    )
    adam = Adam(config.adam.beta1, config.adam.beta2, config.adam.eps)
    content = LatentTable(
        num_images, config.model.content_dim, content_lr,
        adam=adam, seed=config.seed, std=config.model.content_std, device=device,
    )  # fmt: skip
    class_ = LatentTable(
        num_classes,
        config.model.class_dim,
        class_lr,
        adam=adam,
        seed=config.seed + 1,
        device=device,
    )
    return content, class_


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


def stored_codes(
    state: dict[str, dict[str, Tensor]],
    step: int,
    config: TrainConfig,
    num_images: int,
    num_classes: int,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """The codes of a stage-1 checkpoint, without noise.

    Args:
        state: The checkpoint's tensors.
        step: Number of training steps of the checkpoint.
        config: The run's configuration.
        num_images: Rows of the content table.
        num_classes: Rows of the class table.
        device: Device of the codes.

    Returns:
        Content codes, float32 [num_images, content_dim], and class codes, float32
        [num_classes, class_dim].
    """
    steps = config.total_steps(num_images)
    content, class_ = build_tables(config, num_images, num_classes, steps, device)
    content.load_state_dict(state["content"])
    class_.load_state_dict(state["class"])
    return content.codes(step), class_.codes(step)
