"""Builds the networks, tables and losses of a configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lord_fast.config import MOST_KNOWN, EncoderConfig, ModelConfig, TrainConfig
from lord_fast.distributed.shards import Shards, whole
from lord_fast.kernels import Adam
from lord_fast.model.codebook import Codebook
from lord_fast.model.encoder import Encoders, KnownCodes
from lord_fast.model.generator import Decoder
from lord_fast.model.latent import LatentTable, StoredCodes
from lord_fast.model.perceptual import TAPS, VGG16, PerceptualLoss, PyramidLoss, load_weights
from lord_fast.model.schedule import extended_cosine
from lord_fast.model.table_place import TablePlace


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

    Raises:
        ValueError: The options do not fit together.
    """
    if config.class_cross_entropy and not config.class_bandwidth:
        raise ValueError(
            f"--class-cross-entropy {config.class_cross_entropy}: needs a --class-bandwidth above "
            f"0; give one such as 0.25, or --class-cross-entropy 0"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        sizes = run_config.model
        return Encoders(
            sizes.content_dim, sizes.class_dim, config.encoder_dim, size, channels,
            sizes.leaky_slope, _known(config, sizes, counts),
        )  # fmt: skip


def _known(
    config: EncoderConfig, sizes: ModelConfig, counts: tuple[int, int]
) -> tuple[KnownCodes | Codebook | None, KnownCodes | None]:
    """Build the codes that replace the predicted content codes and class codes."""
    content: KnownCodes | Codebook | None = None
    if config.content_codebook:
        _check_codebook(config, counts[0])
        content = Codebook(config.content_codebook, sizes.content_dim, config.content_candidates)
    elif config.content_bandwidth:
        content = KnownCodes(min(counts[0], MOST_KNOWN), sizes.content_dim)
    class_ = KnownCodes(counts[1], sizes.class_dim) if config.class_bandwidth else None
    return content, class_


def _check_codebook(config: EncoderConfig, num_images: int) -> None:
    size, candidates = config.content_codebook, config.content_candidates
    given = f"--content-codebook {size}"
    if config.content_bandwidth:
        raise ValueError(
            f"{given} and --content-bandwidth {config.content_bandwidth}: only one of them can be "
            f"used; set the other one to 0"
        )
    if config.reconstruction_weight:
        raise ValueError(
            f"{given} and --reconstruction-weight {config.reconstruction_weight}: the codes of a "
            f"codebook have no gradient; set one of them to 0"
        )
    if size > num_images:
        raise ValueError(f"{given}: there are {num_images} images; use {num_images} or less")
    if candidates > size:
        raise ValueError(f"--content-candidates {candidates}: use {size} or less, as {given} has")


def build_tables(
    config: TrainConfig,
    num_images: int,
    num_classes: int,
    steps: int,
    device: torch.device,
    shards: Shards | None = None,
    place: TablePlace | None = None,
) -> tuple[dict[int, LatentTable], LatentTable]:
    """Build the tables with their initial codes.

    Args:
        config: The run's configuration.
        num_images: Number of all images.
        num_classes: Number of classes.
        steps: Number of training steps.
        device: Device of the tables.
        shards: The virtual ranks of this process. Defaults to all of them.
        place: Where the rows of the content tables lie. Defaults to the device.

    Returns:
        Virtual rank -> its content table, and the class table.
    """
    content, class_ = _table_settings(config, steps)
    shards = shards or whole(config.virtual_ranks)
    kind = place.table if place else LatentTable
    contents = {
        shard: kind(
            shards.rows(shard, num_images), std=config.model.content_std, device=device,
            shard=shard, **content,
        )
        for shard in shards.mine
    }  # fmt: skip
    return contents, LatentTable(num_classes, device=device, **class_)


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
    every = torch.empty(num_images, config.model.content_dim, device=device)
    for shard in range(config.virtual_ranks):
        into = every[shard :: config.virtual_ranks]
        _read_shard(tables["content"], step, config, num_images, shard, into)
    return every, stored_classes(tables, step, config, num_images, num_classes, device)


def stored_classes(
    tables: Mapping[str, SavedRows],
    step: int,
    config: TrainConfig,
    num_images: int,
    num_classes: int,
    device: torch.device,
) -> Tensor:
    """The class codes of a stage-1 checkpoint, see `stored_codes`."""
    _, class_ = _table_settings(config, config.total_steps(num_images))
    classes = StoredCodes(num_classes, step=step, device=device, **class_)
    tables["class"].load_into({0: classes})
    return classes.codes


def stored_shards(
    tables: Mapping[str, SavedRows],
    step: int,
    config: TrainConfig,
    num_images: int,
    shards: Shards,
    device: torch.device,
) -> dict[int, Tensor]:
    """The content codes of the images of this process, by its virtual ranks in stage 2.

    Args:
        tables: The checkpoint's tables.
        step: Number of training steps of the checkpoint.
        config: The run's configuration, whose virtual ranks may be others.
        num_images: Number of all images.
        shards: The virtual ranks of stage 2.
        device: Device of the codes.

    Returns:
        Virtual rank -> codes of its images, float32 [rows, content_dim].
    """
    count, dim = config.virtual_ranks, config.model.content_dim
    found = {}
    for mine in shards.mine:
        image_ids = torch.arange(mine, num_images, shards.count)
        codes = torch.empty(len(image_ids), dim, device=device)
        for shard in saved_shards(range(mine, mine + 1), shards.count, count):
            of_shard = torch.empty(whole(count).rows(shard, num_images), dim, device=device)
            _read_shard(tables["content"], step, config, num_images, shard, of_shard)
            places = (image_ids % count == shard).nonzero()[:, 0]
            rows = torch.div(image_ids[places], count, rounding_mode="floor")
            codes[places.to(device)] = of_shard[rows.to(device)]
        found[mine] = codes
    return found


def saved_shards(mine: range, count: int, saved: int) -> list[int]:
    """Return which of `saved` virtual ranks hold the images of some of `count` virtual ranks."""
    step = min(count, saved)
    return [shard for shard in range(saved) if any((shard - own) % step == 0 for own in mine)]


def _read_shard(
    table: SavedRows, step: int, config: TrainConfig, num_images: int, shard: int, into: Tensor
) -> None:
    """Read the content codes of a virtual rank of stage 1."""
    content, _ = _table_settings(config, config.total_steps(num_images))
    rows = StoredCodes(
        len(into), step=step, device=into.device, shard=shard, into=into, **content
    )  # fmt: skip
    table.load_into({shard: rows})
