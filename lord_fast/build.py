"""A configuration to the parts it names."""

from pathlib import Path

import torch

from lord_fast.config import EncoderConfig, TrainConfig
from lord_fast.kernels import Adam
from lord_fast.model.encoder import Encoders
from lord_fast.model.generator import Decoder
from lord_fast.model.latent import LatentTable
from lord_fast.model.perceptual import TAPS, VGG16, PerceptualLoss, PyramidLoss, load_weights
from lord_fast.train.schedule import cosine


def build_decoder(config: TrainConfig, size: int, channels: int) -> Decoder:
    """The networks of a configuration, their start a function of its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return Decoder(
            config.content_dim, config.class_dim, config.adain_dim, size, channels,
            config.leaky_slope, config.adain_init,
        )  # fmt: skip


def build_encoders(
    config: EncoderConfig, run_config: TrainConfig, size: int, channels: int
) -> Encoders:
    """The encoders of a run, their start a function of stage 2's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return Encoders(
            run_config.content_dim, run_config.class_dim, config.encoder_dim, size, channels,
            run_config.leaky_slope,
        )  # fmt: skip


def build_tables(
    config: TrainConfig, num_images: int, num_classes: int, steps: int, device: torch.device
) -> tuple[LatentTable, LatentTable]:
    """The content and the class table of a configuration, at their start."""
    content_lr, class_lr = (
        cosine(lr, config.min_lr, steps) for lr in (config.latent_lr, config.class_lr)
    )
    adam = Adam(config.beta1, config.beta2, config.eps)
    content = LatentTable(
        num_images, config.content_dim, content_lr,
        adam=adam, seed=config.seed, std=config.content_std, device=device,
    )  # fmt: skip
    class_ = LatentTable(
        num_classes, config.class_dim, class_lr, adam=adam, seed=config.seed + 1, device=device
    )
    return content, class_


def build_loss(config: TrainConfig, weights: Path | None = None) -> PerceptualLoss | PyramidLoss:
    """The reconstruction loss of a configuration, with other weights if given.

    See `build_vgg` for its errors.
    """
    if config.loss == "pyramid":
        return PyramidLoss()
    vgg = build_vgg(config, weights or config.perceptual_weights)
    return PerceptualLoss(vgg, config.pixel_weight, config.perceptual_weight)


def build_vgg(
    config: TrainConfig, weights: Path | None, taps: tuple[str, ...] | None = None
) -> VGG16:
    """The perceptual features of a configuration, with weights from a file or downloaded.

    Args:
        config: The run's; its input convention goes with the weights.
        weights: A file, or None: download them.
        taps: Layers; default: those of the configuration.

    Raises:
        ValueError: a tap is unknown, or the weights cannot be had (see `load_weights`).
    """
    taps = config.perceptual_taps if taps is None else taps
    unknown = set(taps) - set(TAPS)
    if unknown or not taps:
        raise ValueError(f"--perceptual-taps {' '.join(taps)}: choose from {' '.join(TAPS)}")
    loaded = load_weights(weights, config.perceptual_input)
    return VGG16(loaded, taps, config.perceptual_input)
