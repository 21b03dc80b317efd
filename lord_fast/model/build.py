"""Builds the networks, tables and losses of a configuration."""

import functools
from pathlib import Path

import torch
from torch import Tensor

from lord_fast.config import EncoderConfig, TrainConfig
from lord_fast.distributed.shards import whole
from lord_fast.kernels import Adam
from lord_fast.model.encoder import Encoders
from lord_fast.model.generator import Decoder
from lord_fast.model.latent import LatentTable
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


def build_content(
    config: TrainConfig, num_images: int, shard: int, device: torch.device
) -> LatentTable:
    """Build the content table of a virtual rank with its initial codes.

    Args:
        config: The run's configuration.
        num_images: Number of all images.
        shard: The virtual rank.
        device: Device of the table.
    """
    rows = whole(config.virtual_ranks).rows(shard, num_images)
    return LatentTable(
        rows, config.model.content_dim, _rates(config, config.adam.latent_lr, num_images),
        adam=_adam(config), seed=config.seed, std=config.model.content_std, device=device,
        shard=shard,
    )  # fmt: skip


def build_classes(
    config: TrainConfig, num_images: int, num_classes: int, device: torch.device
) -> LatentTable:
    """Build the class table with its initial codes."""
    return LatentTable(
        num_classes, config.model.class_dim, _rates(config, config.adam.class_lr, num_images),
        adam=_adam(config), seed=config.seed + 1, device=device,
    )  # fmt: skip


def _rates(config: TrainConfig, lr: float, num_images: int) -> Tensor:
    totals = (*config.extended_from, config.total_steps(num_images))
    return _cached_rates(lr, config.adam.min_lr, totals)


@functools.lru_cache(maxsize=2)
def _cached_rates(lr: float, min_lr: float, totals: tuple[int, ...]) -> Tensor:
    """Compute rates once for the tables of all virtual ranks, which only read them."""
    return extended_cosine(lr, min_lr, totals)


def _adam(config: TrainConfig) -> Adam:
    return Adam(config.adam.beta1, config.adam.beta2, config.adam.eps)


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


def namespace(shard: int, count: int) -> str:
    """Return the name of a virtual rank's content table in a checkpoint."""
    return f"content-{shard:04d}" if count > 1 else "content"


def stored_content(
    state: dict[str, dict[str, Tensor]],
    step: int,
    config: TrainConfig,
    num_images: int,
    image_ids: Tensor,
    device: torch.device,
) -> Tensor:
    """The content codes of images in a stage-1 checkpoint, without noise.

    The tables of the virtual ranks are built one after another.

    Args:
        state: The checkpoint's tensors.
        step: Number of training steps of the checkpoint.
        config: The run's configuration.
        num_images: Number of all images.
        image_ids: int64 [B].
        device: Device of the codes.

    Returns:
        float32 [B, content_dim].
    """
    count = config.virtual_ranks
    found = torch.empty(len(image_ids), config.model.content_dim, device=device)
    for shard in range(count):
        wanted = (image_ids % count == shard).nonzero()[:, 0]
        if len(wanted):
            table = build_content(config, num_images, shard, device)
            table.load_state_dict(state[namespace(shard, count)])
            rows = torch.div(image_ids[wanted], count, rounding_mode="floor")
            found[wanted.to(device)] = table.codes(step, rows.to(device))
    return found


def stored_classes(
    state: dict[str, dict[str, Tensor]],
    step: int,
    config: TrainConfig,
    num_images: int,
    num_classes: int,
    device: torch.device,
) -> Tensor:
    """The class codes of a stage-1 checkpoint, float32 [num_classes, class_dim]."""
    table = build_classes(config, num_images, num_classes, device)
    table.load_state_dict(state["class"])
    return table.codes(step)
