"""Stage 2: two encoders learn to predict the codes of stage 1, so that any image has codes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lord_fast.config import EncoderConfig, TrainConfig
from lord_fast.data.store import ImageStore, as_float
from lord_fast.machine import Machine, autocast
from lord_fast.model.build import build_decoder, build_encoders, build_loss, stored_codes
from lord_fast.model.encoder import Encoders
from lord_fast.model.generator import Decoder
from lord_fast.run.checkpoint import State
from lord_fast.train import optimizer
from lord_fast.train.stage import Stage


class EncoderGraph(nn.Module):
    """A step from pixels to the loss, one graph for torch.compile.

    Args:
        encoders: Content and class encoder.
        decoder: Modulation and generator, fine-tuned with them.
        reconstruction: Loss of images against targets, as in stage 1.
        config: Weights of the two codes' errors.
        dtype: Type of the convolutions under autocast.
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
        """uint8 [B, C, H, W] and their codes of stage 1 -> scalars, `loss` among them.

        `wanted` are the pixels' features, where they are cached.

        loss = reconstruction + content_weight * MSE(content) + class_weight * MSE(class); the
        codes of stage 1 carry neither noise nor gradient.
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
        run_config: The run's configuration, of stage 1.
        store: The images of stage 1.
        latent_step: Steps of stage 1.
        latent_state: Its last checkpoint.
        machine: Device, precision and threads.

    Raises:
        ValueError: the configuration is not possible.
    """

    name = "encoders"
    config: EncoderConfig

    def __init__(
        self,
        config: EncoderConfig,
        run_config: TrainConfig,
        store: ImageStore,
        latent_step: int,
        latent_state: State,
        machine: Machine,
    ):
        self.encoders = build_encoders(config, run_config, store.size, store.channels)
        decoder = build_decoder(run_config, store.size, store.channels)
        decoder.load_state_dict(latent_state["decoder"])
        reconstruction = build_loss(run_config, config.perceptual_weights)
        reconstruction.load_state_dict(latent_state["loss"])
        super().__init__(
            config, store, machine,
            graph=EncoderGraph(self.encoders, decoder, reconstruction, config, machine.dtype),
            decoder=decoder, reconstruction=reconstruction,
            adam=run_config.adam, lr=config.lr, min_lr=config.min_lr,
        )  # fmt: skip
        self.content_codes, self.class_codes = stored_codes(
            latent_state, latent_step, run_config, store.num_images, store.num_classes, self.device
        )
        self.features = self.cache_features() if config.machine.cache_target_features else None

    def update(
        self, image_ids: Tensor, class_ids: Tensor, now: Tensor, pixels: Tensor
    ) -> dict[str, Tensor]:
        """See `Stage.update`."""
        content_code, class_code = self.content_codes[image_ids], self.class_codes[class_ids]
        wanted = self.features(image_ids) if self.features else None
        scalars = self.run_graph(pixels, content_code, class_code, wanted)
        scalars["loss"].backward()
        optimizer.step(self.adam)
        return {name: value.detach() for name, value in scalars.items()}

    def grid_codes(self, step: int, columns: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `Stage.grid_codes`; both codes come from the encoders."""
        above, left = (as_float(self.store.images(ids).to(self.device)) for ids in (columns, rows))
        return self.encoders.content(above), self.encoders.class_(left)

    def state(self) -> State:
        """Encoders, generator and modulation, optimizer."""
        return super().state() | {"encoders": self.encoders.state_dict()}

    def load_state(self, state: State) -> None:
        """Restore what `state` returned."""
        super().load_state(state)
        self.encoders.load_state_dict(state["encoders"])
