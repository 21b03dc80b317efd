"""Stage 2 trains encoders that predict the codes of stage 1, so that new images can be encoded."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lord_fast.config import EncoderConfig, TrainConfig
from lord_fast.data.store import ImageStore, as_float
from lord_fast.distributed.group import Group
from lord_fast.distributed.shards import whole
from lord_fast.machine import Machine, autocast
from lord_fast.model.build import build_decoder, build_encoders, build_loss
from lord_fast.model.encoder import Encoders
from lord_fast.model.generator import Decoder
from lord_fast.run.checkpoint import State
from lord_fast.train import optimizer
from lord_fast.train.stage import Stage


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

    def forward(
        self,
        pixels: Tensor,
        content_code: Tensor,
        class_code: Tensor,
        wanted: list[Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Compute the loss.

        loss = reconstruction + content_weight * MSE(content) + class_weight * MSE(class)

        Args:
            pixels: Images, uint8 [B, C, H, W].
            content_code: Content codes of stage 1, without noise and without gradient.
            class_code: Class codes of stage 1, without gradient.
            wanted: Perceptual features of the images if they are cached.

        Returns:
            Named scalars, including `loss`.
        """
        with autocast(pixels.device, self.dtype):
            targets = as_float(pixels)
            content, class_ = self.encoders(targets)
            reconstruction = self.reconstruction(self.decoder(content, class_), targets, wanted)
        content_error = F.mse_loss(content, content_code)
        class_error = F.mse_loss(class_, class_code)
        loss = reconstruction + self.config.content_weight * content_error
        loss = loss + self.config.class_weight * class_error
        return {
            "loss": loss,
            "reconstruction": reconstruction,
            "content_error": content_error,
            "class_error": class_error,
        }


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
        self.encoders = build_encoders(config, run_config, store.size, store.channels)
        decoder = build_decoder(run_config, store.size, store.channels)
        decoder.load_state_dict(latent_state["decoder"])
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

    def update(
        self, image_ids: Tensor, class_ids: Tensor, now: Tensor, pixels: Tensor, by_class: Tensor
    ) -> dict[str, Tensor]:
        """See `Stage.update`."""
        parts = self.shards.split(self.shards.local(image_ids), class_ids, pixels)
        for shard, (rows, classes, images) in parts:
            content_code, class_code = self.content_codes[shard][rows], self.class_codes[classes]
            wanted = self.features[shard](rows) if self.features else None
            self.gradients.backward(self.run_graph(images, content_code, class_code, wanted))
        scalars = self.gradients.finish()
        optimizer.step(self.adam)
        return scalars

    def grid_codes(self, step: int, columns: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `Stage.grid_codes`. The encoders predict both codes."""
        above, left = (as_float(self.store.images(ids).to(self.device)) for ids in (columns, rows))
        return self.encoders.content(above), self.encoders.class_(left)

    def state(self) -> State:
        """Return the state of the encoders, the decoder and the optimizer."""
        return super().state() | {"encoders": self.encoders.state_dict()}

    def load_state(self, state: State) -> None:
        """Restore a state from `state`."""
        super().load_state(state)
        self.encoders.load_state_dict(state["encoders"])
