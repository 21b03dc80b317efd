"""Stage 1: every image's content code, every class's code and the generator, optimized together."""

import torch
from torch import Tensor, nn

from lord_fast.config import TrainConfig
from lord_fast.data.sampler import permutation
from lord_fast.data.store import ImageStore, as_float
from lord_fast.machine import Machine, autocast
from lord_fast.model.build import build_decoder, build_loss, build_tables
from lord_fast.model.generator import Decoder
from lord_fast.model.perceptual import SCALE_IMAGES, PerceptualLoss
from lord_fast.run.checkpoint import State
from lord_fast.train import optimizer
from lord_fast.train.stage import Stage


class LatentGraph(nn.Module):
    """The dense part of a step: codes and images to the loss, one graph for torch.compile.

    Args:
        decoder: Modulation and generator.
        reconstruction: Loss of images against targets.
        content_decay: Weight of the content penalty.
        dtype: Type of the convolutions under autocast.
    """

    def __init__(
        self, decoder: Decoder, reconstruction: nn.Module, content_decay: float, dtype: torch.dtype
    ):
        super().__init__()
        self.decoder, self.reconstruction = decoder, reconstruction
        self.content_decay, self.dtype = content_decay, dtype

    def forward(
        self,
        content_code: Tensor,
        class_code: Tensor,
        pixels: Tensor,
        wanted: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[B, content_dim], [B, class_dim], uint8 [B, C, H, W] -> loss, reconstruction, penalty.

        `wanted` are the pixels' features, where they are cached.
        The penalty is the mean over the batch of the noisy content code's sum of squares, as in
        the published PyTorch code.
        """
        with autocast(pixels.device, self.dtype):
            images = self.decoder(content_code, class_code)
            reconstruction = self.reconstruction(images, as_float(pixels), wanted)
        penalty = self.content_decay * content_code.square().sum(1).mean()
        return reconstruction + penalty, reconstruction, penalty


class LatentStage(Stage):
    """Stage 1 (Gabbay & Hoshen, 2020, section 3).

    Args:
        config: The run's configuration.
        store: The images.
        machine: Device, precision and threads.

    Raises:
        ValueError: the configuration is not possible, or the store has fewer images than a
            batch, one class only, or a class of one image.
    """

    name = "latent"
    config: TrainConfig

    def __init__(self, config: TrainConfig, store: ImageStore, machine: Machine):
        check_trainable(store)
        decoder = build_decoder(config, store.size, store.channels).to(machine.device)
        reconstruction = build_loss(config).to(machine.device)
        super().__init__(
            config, store, machine,
            graph=LatentGraph(decoder, reconstruction, config.loss.content_decay, machine.dtype),
            decoder=decoder, reconstruction=reconstruction,
            adam=config.adam, lr=config.adam.lr, min_lr=config.adam.min_lr,
        )  # fmt: skip
        self.content, self.class_ = build_tables(
            config, store.num_images, store.num_classes, self.total_steps, self.device
        )
        normalized = config.loss.perceptual_scale == "normalized"
        if normalized and isinstance(reconstruction, PerceptualLoss):
            order = permutation(store.num_images, config.seed, 0)[:SCALE_IMAGES]
            reconstruction.measure_scale(self.images_of(order))
        self.features = self.cache_features() if config.machine.cache_target_features else None

    def update(
        self, image_ids: Tensor, class_ids: Tensor, now: Tensor, pixels: Tensor
    ) -> dict[str, Tensor]:
        """See `Stage.update`."""
        # The codes are leaves of the graph. The content code has its noise.
        content_code = self.content.gather(image_ids, now)
        class_code = self.class_.gather(class_ids, now)

        # Generate, compare, differentiate.
        wanted = self.features(image_ids) if self.features else None
        loss, reconstruction, penalty = self.run_graph(content_code, class_code, pixels, wanted)
        loss.backward()

        # Adam on the networks, and dense Adam at sparse cost on the codes (no image is twice in a
        # batch, classes are).
        optimizer.step(self.adam)
        self.content.scatter_adam_(image_ids, content_code, now, unique=True)
        self.class_.scatter_adam_(class_ids, class_code, now)
        scalars = {"loss": loss, "reconstruction": reconstruction, "content_penalty": penalty}
        return {name: value.detach() for name, value in scalars.items()}

    def grid_codes(self, step: int, columns: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `Stage.grid_codes`; without noise."""
        content = self.content.codes(step, columns.to(self.device))
        return content, self.class_.codes(step, self.store.class_ids[rows].to(self.device))

    def state(self) -> State:
        """Networks, optimizer, both tables, and the scale of the perceptual taps."""
        return super().state() | {
            "content": self.content.state_dict(),
            "class": self.class_.state_dict(),
            "loss": self.reconstruction.state_dict(),
        }

    def load_state(self, state: State) -> None:
        """Restore what `state` returned."""
        super().load_state(state)
        self.content.load_state_dict(state["content"])
        self.class_.load_state_dict(state["class"])
        self.reconstruction.load_state_dict(state["loss"])


def check_trainable(store: ImageStore) -> None:
    """Refuse stores that LORD cannot separate.

    Raises:
        ValueError: one class only, or a class of one image.
    """
    if store.num_classes < 2:
        raise ValueError(
            f"{store.path}: one class only ({store.class_names[0]}); LORD separates what differs "
            f"between classes from what varies inside them, and needs at least two"
        )
    counts = torch.bincount(store.class_ids, minlength=store.num_classes)
    alone = [store.class_names[i] for i in (counts < 2).nonzero()[:, 0].tolist()]
    if alone:
        raise ValueError(
            f"{store.path}: {len(alone)} of {store.num_classes} classes have one image "
            f"({', '.join(alone[:5])}{', ...' if len(alone) > 5 else ''}), which has no content to "
            f"tell from its class; pack again without them (--min-class-size 2)"
        )
