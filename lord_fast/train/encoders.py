"""Stage 2 trains encoders that predict the codes of stage 1, so that new images can be encoded."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lord_fast.config import MOST_KNOWN, EncoderConfig, TrainConfig
from lord_fast.data.sampler import permutation
from lord_fast.data.store import ImageStore, as_float
from lord_fast.distributed.group import Group
from lord_fast.distributed.shards import whole
from lord_fast.machine import Machine, autocast
from lord_fast.model.build import build_decoder, build_encoders, build_loss
from lord_fast.model.codebook import Codebook
from lord_fast.model.encoder import Encoders, KnownCodes
from lord_fast.model.generator import Decoder
from lord_fast.run.checkpoint import State
from lord_fast.train import optimizer
from lord_fast.train.stage import Stage

MOST_WATCHED = 8
"""Largest number of images of a step whose reconstruction is logged if it is not trained."""
MOST_FOR_INIT = 512
"""Largest number of images that determine the scale of the initial weights."""


class EncoderGraph(nn.Module):
    """The part of a step from pixels to the loss, as one graph for torch.compile.

    Args:
        encoders: Content and class encoder.
        decoder: Modulation and generator, which are fine-tuned together with the encoders.
        reconstruction: Reconstruction loss of stage 1.
        config: Holds the loss weights of the two codes.
        dtype: Autocast dtype of the convolutions.
    """

    def __init__(
        self,
        encoders: Encoders,
        decoder: Decoder,
        reconstruction: nn.Module,
        config: EncoderConfig,
        dtype: torch.dtype,
    ):
        super().__init__()
        self.encoders, self.decoder, self.reconstruction = encoders, decoder, reconstruction
        self.config, self.dtype = config, dtype
        # torch.compile would trace the weights as symbols, on which it cannot branch.
        self.tunes_decoder = config.reconstruction_weight > 0
        self.tells_classes = config.class_cross_entropy > 0

    def forward(
        self,
        pixels: Tensor,
        content_code: Tensor,
        class_code: Tensor,
        class_ids: Tensor,
        wanted: list[Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Compute the loss.

        loss = reconstruction_weight * reconstruction + content_weight * MSE(content)
               + class_weight * MSE(class) + class_cross_entropy * CE(class)

        The three last terms are means over the images and the generated images.

        Args:
            pixels: Images, uint8 [B, C, H, W].
            content_code: Content codes of stage 1, without noise and without gradient.
            class_code: Class codes of stage 1, without gradient.
            class_ids: Classes of the images, int64 [B].
            wanted: Perceptual features of the images if they are cached.

        Returns:
            Named scalars, including `loss`.
        """
        config = self.config
        with autocast(pixels.device, self.dtype):
            targets = as_float(pixels)
            images = self.with_swaps(targets, content_code, class_code)
            content = self.encoders.content.predict(images)
            class_ = self.encoders.class_.predict(images)
            reconstruction = self.reconstruct(content, class_, targets, wanted)
        rolled = range(config.swaps + 1)
        content_error = F.mse_loss(content, content_code.repeat(len(rolled), 1))
        wanted_class = torch.cat([class_code.roll(by, 0) for by in rolled])
        class_error = F.mse_loss(class_, wanted_class)
        loss = config.reconstruction_weight * reconstruction
        loss = loss + config.content_weight * content_error
        loss = loss + config.class_weight * class_error
        scalars = {
            "reconstruction": reconstruction,
            "content_error": content_error,
            "class_error": class_error,
        }
        if self.tells_classes:
            assert isinstance(self.encoders.class_.known, KnownCodes)
            logits = self.encoders.class_.known.logits(class_)
            wanted_id = torch.cat([class_ids.roll(by, 0) for by in rolled])
            scalars["class_cross_entropy"] = F.cross_entropy(logits, wanted_id)
            loss = loss + config.class_cross_entropy * scalars["class_cross_entropy"]
        return {"loss": loss, **scalars}

    def with_swaps(self, targets: Tensor, content_code: Tensor, class_code: Tensor) -> Tensor:
        """Append generated images, each with the content of one image and the class of another.

        Returns:
            Images, [(1 + swaps) * B, C, H, W]. Every image of part n has the content of the image
            at its place and the class of the image that is n places before it.
        """
        with torch.no_grad():
            swapped = [
                self.decoder(content_code, class_code.roll(by, 0))
                for by in range(1, self.config.swaps + 1)
            ]
        return torch.cat([targets, *swapped])

    def reconstruct(
        self, content: Tensor, class_: Tensor, targets: Tensor, wanted: list[Tensor] | None
    ) -> Tensor:
        """Compute the reconstruction loss. If it is not trained, a few images suffice.

        With a codebook, the images have the codes nearest to the predictions. The loss is larger
        than with those that `Codebook.search` finds.
        """
        count = len(targets) if self.tunes_decoder else min(len(targets), MOST_WATCHED)
        content = self.encoders.content.refine(_first(content, count))
        class_ = self.encoders.class_.refine(_first(class_, count))
        wanted = None if wanted is None else [_first(feature, count) for feature in wanted]
        with torch.set_grad_enabled(self.tunes_decoder):
            images = self.decoder(content, class_)
            return self.reconstruction(images, _first(targets, count), wanted)


def _first(rows: Tensor, count: int) -> Tensor:
    """Return the first rows. All rows are returned as they are.

    A slice would be a node of the graph, which adds the gradients in another order.
    """
    return rows if len(rows) <= count else rows[:count]


class EncoderStage(Stage):
    """Stage 2 (Gabbay & Hoshen, 2020, section 3).

    Args:
        config: The configuration of stage 2.
        run_config: The configuration of stage 1.
        store: The images of stage 1.
        latent_state: State of the networks and of the loss of stage 1.
        codes: Virtual rank of this process -> its content codes of stage 1 [rows, content_dim],
            and class codes [num_classes, class_dim].
        machine: Device, precision and threads.
        group: The processes that train together. Defaults to this process alone.

    Raises:
        ValueError: The networks, the loss or the optimizer cannot be built as configured.
    """

    name = "encoders"
    config: EncoderConfig

    def __init__(
        self,
        config: EncoderConfig,
        run_config: TrainConfig,
        store: ImageStore,
        latent_state: State,
        codes: tuple[dict[int, Tensor], Tensor],
        machine: Machine,
        group: Group | None = None,
    ):
        counts = (store.num_images, store.num_classes)
        self.encoders = build_encoders(config, run_config, store.size, store.channels, counts)
        decoder = build_decoder(run_config, store.size, store.channels)
        decoder.load_state_dict(latent_state["decoder"])
        decoder.requires_grad_(config.reconstruction_weight > 0)
        reconstruction = build_loss(run_config, config.perceptual_weights)
        reconstruction.load_state_dict(latent_state["loss"])
        super().__init__(
            config, store, machine, group or Group(whole(config.virtual_ranks)),
            graph=EncoderGraph(self.encoders, decoder, reconstruction, config, machine.dtype),
            decoder=decoder, reconstruction=reconstruction,
            adam=run_config.adam, lr=config.lr, min_lr=config.min_lr,
        )  # fmt: skip
        self.content_codes, self.class_codes = codes
        self.keep_frozen_weights()
        self.features = self.cache_features() if self.form.cache_target_features.on else None

    def begin(self) -> None:
        """See `Stage.begin`. Give the encoders the known codes and their initial weights."""
        order = permutation(self.store.num_images, self.seed, 0)[:MOST_KNOWN]
        codes = self.codes_of(order.to(self.device, torch.int64))
        config, content, class_ = self.config, self.encoders.content, self.encoders.class_
        if isinstance(content.known, Codebook):
            content.known.fill(codes, self.seed)
            # Other processors may round otherwise, so the centres of the first process count.
            centres = content.known.codes
            centres.copy_(self.group.gather_rows(centres)[: len(centres)])
        elif isinstance(content.known, KnownCodes):
            content.known.fill(codes, config.content_bandwidth)
        if isinstance(class_.known, KnownCodes):
            class_.known.fill(self.class_codes, config.class_bandwidth)
        if config.encoder_init == "kaiming":
            generator = torch.Generator().manual_seed(self.seed)
            images = torch.cat(list(self.images_of(order[:MOST_FOR_INIT])))
            content.init_kaiming(images, codes, generator)
            class_.init_kaiming(images, self.class_codes, generator)

    def codes_of(self, image_ids: Tensor) -> Tensor:
        """Return content codes of any images in every process, float32 [B, content_dim]."""
        found = image_ids.new_zeros(
            len(image_ids), self.content_codes[self.shards.mine[0]].shape[1], dtype=torch.float32
        )
        for shard, codes in self.content_codes.items():
            own = torch.remainder(image_ids, self.shards.count) == shard
            found[own] = codes[self.shards.local(image_ids[own])]
        return self.group.select(found, image_ids)

    def update(
        self, image_ids: Tensor, class_ids: Tensor, now: Tensor, pixels: Tensor, by_class: Tensor
    ) -> dict[str, Tensor]:
        """See `Stage.update`."""
        parts = self.shards.split(self.shards.local(image_ids), class_ids, pixels)
        for shard, (rows, classes, images) in parts:
            content_code, class_code = self.content_codes[shard][rows], self.class_codes[classes]
            wanted = self.features[shard](rows) if self.features else None
            scalars = self.run_graph(images, content_code, class_code, classes, wanted)
            self.gradients.backward(scalars)
        scalars = self.gradients.finish()
        optimizer.step(self.adam)
        return scalars

    def grid_codes(self, step: int, columns: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `Stage.grid_codes`. The encoders predict both codes."""
        above, left = (as_float(self.store.images(ids).to(self.device)) for ids in (columns, rows))
        return self.encoders(above, self.decoder)[0], self.encoders.class_(left)

    def state(self) -> State:
        """Return the state of the encoders, the decoder and the optimizer."""
        return super().state() | {"encoders": self.encoders.state_dict()}

    def load_state(self, state: State) -> None:
        """Restore a state from `state`."""
        super().load_state(state)
        self.encoders.load_state_dict(state["encoders"])
