"""Stage 2: two encoders learn to predict the codes of stage 1, so that any image has codes."""

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lord_fast.build import build_decoder, build_encoders, build_loss, build_tables
from lord_fast.config import EncoderConfig, TrainConfig, check
from lord_fast.data.loader import Loader
from lord_fast.data.sampler import EpochSampler
from lord_fast.data.store import ImageStore, as_float
from lord_fast.machine import Machine, autocast
from lord_fast.model.encoder import Encoders
from lord_fast.model.generator import Decoder
from lord_fast.train import optimizer
from lord_fast.train.capture import CudaGraph, Update
from lord_fast.train.checkpoint import State
from lord_fast.train.latent import grid_images, swap_grid, total_steps
from lord_fast.train.schedule import cosine


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
        self, pixels: Tensor, content_code: Tensor, class_code: Tensor
    ) -> dict[str, Tensor]:
        """uint8 [B, C, H, W] and their codes of stage 1 -> scalars, `loss` among them.

        loss = reconstruction + content_weight * MSE(content) + class_weight * MSE(class); the
        codes of stage 1 carry neither noise nor gradient.
        """
        with autocast(pixels.device, self.dtype):
            targets = as_float(pixels)
            content, class_ = self.encoders(targets)
            reconstruction = self.reconstruction(self.decoder(content, class_), targets)
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


class EncoderStage:
    """Stage 2 as `lord_fast.train.loop` runs it (Gabbay & Hoshen, 2020, section 3).

    Args:
        config: What is of stage 2.
        run_config: The run's configuration, of stage 1.
        store: The images of stage 1.
        latent_step: Steps of stage 1.
        latent_state: Its last checkpoint.
        machine: Device, precision and threads.

    Raises:
        ValueError: the configuration is not possible.
    """

    name = "amortized"

    def __init__(
        self,
        config: EncoderConfig,
        run_config: TrainConfig,
        store: ImageStore,
        latent_step: int,
        latent_state: State,
        machine: Machine,
    ):
        self.config, self.store, self.device = config, store, machine.device
        check(config)
        self.batch_size = config.batch_size
        self.sampler = EpochSampler(store.num_images, config.batch_size, config.seed)
        self.loader = Loader(store, self.sampler, machine.device)
        self.steps_per_epoch = self.sampler.steps_per_epoch
        self.total_steps = total_steps(config, store.num_images)

        self.encoders = build_encoders(config, run_config, store.size, store.channels)
        self.decoder = build_decoder(run_config, store.size, store.channels)
        self.decoder.load_state_dict(latent_state["decoder"])
        reconstruction = build_loss(run_config, config.perceptual_weights)
        reconstruction.load_state_dict(latent_state["loss"])
        self.graph = EncoderGraph(
            self.encoders, self.decoder, reconstruction, config, machine.dtype
        ).to(self.device)
        self.run_graph = torch.compile(self.graph, fullgraph=True) if config.compile else self.graph
        self.lr = cosine(config.lr, config.min_lr, self.total_steps)
        parameters = (*self.encoders.parameters(), *self.decoder.parameters())
        self.adam = optimizer.adam(
            parameters,
            dataclasses.replace(run_config, lr=config.lr, cuda_graph=config.cuda_graph),
        )
        self.run_update: Update = CudaGraph(self.update) if config.cuda_graph else self.update
        self.content_codes, self.class_codes = codes_of(
            latent_state, latent_step, run_config, store.num_images, store.num_classes, self.device
        )

    def step(self, step: int) -> dict[str, Tensor]:
        """One step of amortization: its images and their classes, and what they update."""
        image_ids = self.sampler.image_ids(step)
        class_ids = self.store.class_ids[image_ids].to(self.device)
        optimizer.set_learning_rate(self.adam, self.learning_rate(step))
        return self.run_update(image_ids.to(self.device), class_ids, self.loader.pixels(step))

    def update(self, image_ids: Tensor, class_ids: Tensor, pixels: Tensor) -> dict[str, Tensor]:
        """What a step does on the device; the host reads nothing, so that CUDA can capture it."""
        content_code, class_code = self.content_codes[image_ids], self.class_codes[class_ids]
        scalars = self.run_graph(pixels, content_code, class_code)
        scalars["loss"].backward()
        optimizer.step(self.adam)
        return {name: value.detach() for name, value in scalars.items()}

    def learning_rate(self, step: int) -> float:
        """Of everything that learns."""
        return float(self.lr[step])

    def state(self) -> State:
        """Encoders, generator and modulation, optimizer."""
        return {
            "encoders": self.encoders.state_dict(),
            "decoder": self.decoder.state_dict(),
            "optimizer": optimizer.state_dict(self.adam),
        }

    def load_state(self, state: State) -> None:
        """Restore what `state` returned."""
        self.encoders.load_state_dict(state["encoders"])
        self.decoder.load_state_dict(state["decoder"])
        optimizer.load_state_dict(self.adam, state["optimizer"])

    @torch.no_grad()
    def grid(self, step: int) -> np.ndarray:
        """As in stage 1, but both codes of every cell come from the encoders."""
        above, left = (
            as_float(self.store.images(ids).to(self.device))
            for ids in grid_images(self.store, self.config.seed)
        )
        content, class_ = self.encoders.content(above), self.encoders.class_(left)
        return swap_grid(self.decoder, above, left, content, class_)


def codes_of(
    latent_state: State,
    latent_step: int,
    config: TrainConfig,
    num_images: int,
    num_classes: int,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """The codes of a checkpoint of stage 1, without noise.

    Returns:
        float32 [num_images, content_dim] and [num_classes, class_dim].
    """
    steps = total_steps(config, num_images)
    content, class_ = build_tables(config, num_images, num_classes, steps, device)
    content.load_state_dict(latent_state["content"])
    class_.load_state_dict(latent_state["class"])
    return content.codes(latent_step), class_.codes(latent_step)
