"""Stage 1: every image's content code, every class's code and the generator, optimized together."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from lord_fast.build import build_decoder, build_loss, build_tables
from lord_fast.config import EncoderConfig, TrainConfig, check
from lord_fast.data.loader import Loader
from lord_fast.data.sampler import EpochSampler, permutation
from lord_fast.data.store import ImageStore, as_float
from lord_fast.grid import tile
from lord_fast.machine import Machine, autocast
from lord_fast.model.features import FeatureCache
from lord_fast.model.generator import Decoder
from lord_fast.model.perceptual import SCALE_IMAGES, PerceptualLoss
from lord_fast.train import optimizer
from lord_fast.train.capture import CudaGraph, Update
from lord_fast.train.checkpoint import State
from lord_fast.train.schedule import cosine

GRID_ROWS, GRID_COLUMNS = 8, 10


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


class LatentStage:
    """Stage 1 as `lord_fast.train.loop` runs it (Gabbay & Hoshen, 2020, section 3).

    Args:
        config: The run's configuration.
        store: The images.
        machine: Device, precision and threads.

    Raises:
        ValueError: the configuration is not possible, or the store has fewer images than a
            batch, one class only, or a class of one image.
    """

    name = "latent"

    def __init__(self, config: TrainConfig, store: ImageStore, machine: Machine):
        self.config, self.store, self.device = config, store, machine.device
        check(config)
        check_trainable(store)
        self.batch_size = config.batch_size
        self.sampler = EpochSampler(store.num_images, config.batch_size, config.seed)
        self.loader = Loader(store, self.sampler, machine.device)
        self.steps_per_epoch = self.sampler.steps_per_epoch
        self.total_steps = total_steps(config, store.num_images)

        self.decoder = build_decoder(config, store.size, store.channels).to(self.device)
        reconstruction = build_loss(config).to(self.device)
        self.graph = LatentGraph(
            self.decoder, reconstruction, config.content_decay, machine.dtype
        ).to(self.device)
        self.run_graph = torch.compile(self.graph, fullgraph=True) if config.compile else self.graph
        self.lr = cosine(config.lr, config.min_lr, self.total_steps)
        self.adam = optimizer.adam(self.decoder.parameters(), config)
        self.content, self.class_ = build_tables(
            config, store.num_images, store.num_classes, self.total_steps, self.device
        )
        if isinstance(reconstruction, PerceptualLoss) and config.perceptual_scale == "normalized":
            reconstruction.measure_scale(self._sample())
        self.features = self._cache() if config.cache_target_features else None
        self.run_update: Update = CudaGraph(self.update) if config.cuda_graph else self.update

    def step(self, step: int) -> dict[str, Tensor]:
        """One step of latent optimization: its images and their classes, and what they update."""
        image_ids = self.sampler.image_ids(step)
        class_ids = self.store.class_ids[image_ids].to(self.device)
        now = torch.tensor(step, device=self.device)
        optimizer.set_learning_rate(self.adam, self.learning_rate(step))
        return self.run_update(image_ids.to(self.device), class_ids, now, self.loader.pixels(step))

    def update(
        self, image_ids: Tensor, class_ids: Tensor, now: Tensor, pixels: Tensor
    ) -> dict[str, Tensor]:
        """What a step does on the device; the host reads nothing, so that CUDA can capture it.

        Args:
            image_ids: int64 [B].
            class_ids: int64 [B].
            now: Steps done so far, int64 scalar.
            pixels: uint8 [B, C, H, W].

        Returns:
            Scalars to log.
        """
        # The codes: leaves of the graph, the content code with its noise.
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

    def learning_rate(self, step: int) -> float:
        """Of generator and modulation."""
        return float(self.lr[step])

    def state(self) -> State:
        """Networks, optimizer, both tables, and the scale of the perceptual taps."""
        return {
            "decoder": self.decoder.state_dict(),
            "optimizer": optimizer.state_dict(self.adam),
            "content": self.content.state_dict(),
            "class": self.class_.state_dict(),
            "loss": self.graph.reconstruction.state_dict(),
        }

    def load_state(self, state: State) -> None:
        """Restore what `state` returned."""
        self.decoder.load_state_dict(state["decoder"])
        optimizer.load_state_dict(self.adam, state["optimizer"])
        self.content.load_state_dict(state["content"])
        self.class_.load_state_dict(state["class"])
        self.graph.reconstruction.load_state_dict(state["loss"])

    @torch.no_grad()
    def grid(self, step: int) -> np.ndarray:
        """Content of the image above, class of the image at the left; the same images each time."""
        columns, rows = grid_images(self.store, self.config.seed)
        content = self.content.codes(step, columns.to(self.device))
        class_ = self.class_.codes(step, self.store.class_ids[rows].to(self.device))
        above, left = (as_float(self.store.images(ids)) for ids in (columns, rows))
        return swap_grid(self.decoder, above, left, content, class_)

    def _sample(self) -> Iterator[Tensor]:
        order = permutation(self.store.num_images, self.config.seed, 0)[:SCALE_IMAGES]
        return self._images(order)

    def _images(self, image_ids: Tensor) -> Iterator[Tensor]:
        for part in image_ids.split(self.batch_size):
            yield as_float(self.store.images(part).to(self.device))

    def _cache(self) -> FeatureCache:
        loss = self.graph.reconstruction
        if not isinstance(loss, PerceptualLoss):
            raise ValueError(f"--cache-target-features: --loss {self.config.loss} has no features")
        with autocast(self.device, self.graph.dtype):
            images = self._images(torch.arange(self.store.num_images))
            return FeatureCache(loss.vgg, images, self.store.num_images)


def total_steps(config: TrainConfig | EncoderConfig, num_images: int) -> int:
    """--steps, or the steps of --epochs."""
    return config.steps or config.epochs * (num_images // config.batch_size)


def grid_images(store: ImageStore, seed: int) -> tuple[Tensor, Tensor]:
    """The images above and left of a run's grids, int64; the rows are of different classes."""
    order = permutation(store.num_images, seed, 0)
    return order[:GRID_COLUMNS], first_of_each_class(store, order)[:GRID_ROWS]


def swap_grid(
    decoder: Decoder, above: Tensor, left: Tensor, content: Tensor, class_: Tensor
) -> np.ndarray:
    """Every content with every class, beside the images [N, C, H, W] that they come from."""
    cells = [
        [image, *decoder(content, code.expand(len(content), -1))]
        for image, code in zip(left, class_, strict=True)
    ]
    return tile([[None, *above], *cells])


def first_of_each_class(store: ImageStore, order: Tensor) -> Tensor:
    """The first image of each class in `order`, int64, in that order."""
    classes = store.class_ids[order].numpy()
    return order[np.sort(np.unique(classes, return_index=True)[1])]


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
