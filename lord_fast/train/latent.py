"""Stage 1 jointly optimizes a content code per image, a class code per class and the generator."""

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
from lord_fast.run.segments import Tables
from lord_fast.train import optimizer
from lord_fast.train.capture import Changed
from lord_fast.train.stage import Stage


class LatentGraph(nn.Module):
    """The dense part of a step, from codes to the loss, as one graph for torch.compile.

    Args:
        decoder: Modulation and generator.
        reconstruction: Reconstruction loss.
        content_decay: Weight of the content penalty.
        dtype: Autocast dtype of the convolutions.
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
        """Compute the loss.

        The penalty is the squared norm of the noisy content code, averaged over the batch, as in
        the published PyTorch code.

        Args:
            content_code: Content codes with noise, [B, content_dim].
            class_code: Class codes, [B, class_dim].
            pixels: Target images, uint8 [B, C, H, W].
            wanted: Perceptual features of the targets if they are cached.

        Returns:
            The loss and its two terms, which are the reconstruction loss and the weighted penalty.
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
        ValueError: The networks, the loss or the optimizer cannot be built as configured. Or the
            store has fewer images than a batch, a single class, or a class of one image.
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
        self.keep_frozen_weights()
        self.features = self.cache_features() if self.form.cache_target_features.on else None

    def update(
        self, image_ids: Tensor, class_ids: Tensor, now: Tensor, pixels: Tensor, by_class: Tensor
    ) -> dict[str, Tensor]:
        """See `Stage.update`."""
        # The codes are leaves of the graph. The content codes include noise.
        content_code = self.content.gather(image_ids, now)
        class_code = self.class_.gather(class_ids, now)

        # Forward and backward pass.
        wanted = self.features(image_ids) if self.features else None
        loss, reconstruction, penalty = self.run_graph(content_code, class_code, pixels, wanted)
        loss.backward()

        # Adam on the networks, and dense Adam at sparse cost on the codes. An image occurs once in
        # a batch, but a class can occur several times.
        optimizer.step(self.adam)
        self.content.scatter_adam_(image_ids, content_code, now, unique=True)
        self.class_.scatter_adam_(class_ids, class_code, now, by_row=by_class)
        scalars = {"loss": loss, "reconstruction": reconstruction, "content_penalty": penalty}
        return {name: value.detach() for name, value in scalars.items()}

    def changed(self, image_ids: Tensor, class_ids: Tensor, *others: Tensor) -> dict[str, Changed]:
        """See `Stage.changed`."""
        return super().changed(image_ids, class_ids) | {
            "content": [(part, image_ids) for part in self.content.state],
            "class": [(part, class_ids) for part in self.class_.state],
        }

    def grid_codes(self, step: int, columns: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `Stage.grid_codes`. The content codes have no noise."""
        content = self.content.codes(step, columns.to(self.device))
        return content, self.class_.codes(step, self.store.class_ids[rows].to(self.device))

    def state(self) -> State:
        """Return the state of the networks, the optimizer and the loss."""
        return super().state() | {"loss": self.reconstruction.state_dict()}

    def tables(self) -> Tables:
        """Return the content table and the class table."""
        return {"content": {0: self.content}, "class": {0: self.class_}}

    def load_state(self, state: State) -> None:
        """Restore a state from `state`."""
        super().load_state(state)
        self.reconstruction.load_state_dict(state["loss"])


def check_trainable(store: ImageStore) -> None:
    """Check that a store has several classes and several images of each.

    Raises:
        ValueError: The store has a single class, or a class has only one image.
    """
    if store.num_classes < 2:
        raise ValueError(
            f"{store.path}: one class only ({store.class_names[0]}). LORD separates what differs "
            f"between classes from what varies within a class, so it needs at least two classes"
        )
    counts = torch.bincount(store.class_ids, minlength=store.num_classes)
    alone = [store.class_names[i] for i in (counts < 2).nonzero()[:, 0].tolist()]
    if alone:
        raise ValueError(
            f"{store.path}: {len(alone)} of {store.num_classes} classes have one image "
            f"({', '.join(alone[:5])}{', ...' if len(alone) > 5 else ''}), so their content cannot "
            f"be told from their class; pack again with --min-class-size 2 to leave them out"
        )
