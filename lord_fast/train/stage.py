"""What both stages share: a stage adds its networks, its inputs and its update."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from lord_fast.config import AdamConfig, StageConfig
from lord_fast.data.loader import Loader
from lord_fast.data.sampler import EpochSampler, permutation
from lord_fast.data.store import ImageStore, as_float
from lord_fast.grid import tile
from lord_fast.machine import Machine, autocast
from lord_fast.model.features import FeatureCache
from lord_fast.model.generator import Decoder
from lord_fast.model.perceptual import PerceptualLoss
from lord_fast.model.schedule import extended_cosine
from lord_fast.run.checkpoint import State
from lord_fast.run.codes import Stage as StageName
from lord_fast.train import optimizer
from lord_fast.train.capture import CudaGraph, Update

GRID_ROWS, GRID_COLUMNS = 8, 10


class Stage(ABC):
    """One stage of training, as `lord_fast.train.loop` runs it.

    Args:
        config: The stage's configuration.
        store: The images.
        machine: Device, precision and threads.
        graph: The dense part of a step, from codes or pixels to the loss. One graph for
            torch.compile.
        decoder: Modulation and generator, a part of `graph`.
        reconstruction: The loss of images against targets, a part of `graph`.
        adam: Betas, epsilon and implementation of Adam.
        lr: Learning rate of the networks at the first step.
        min_lr: And after the last.

    Attributes:
        name: latent or encoders.
        total_steps: Where it ends.
        steps_per_epoch: Steps of one pass over the images.
        batch_size: Images per step.

    Raises:
        ValueError: the store has fewer images than a batch.
    """

    name: StageName

    def __init__(
        self,
        config: StageConfig,
        store: ImageStore,
        machine: Machine,
        *,
        graph: nn.Module,
        decoder: Decoder,
        reconstruction: nn.Module,
        adam: AdamConfig,
        lr: float,
        min_lr: float,
    ):
        self.config: StageConfig = config
        self.store, self.machine, self.device = store, machine, machine.device
        self.batch_size, self.seed = config.batch_size, config.seed
        self.sampler = EpochSampler(store.num_images, config.batch_size, config.seed)
        self.loader = Loader(store, self.sampler, machine.device)
        self.steps_per_epoch = self.sampler.steps_per_epoch
        self.total_steps = config.total_steps(store.num_images)
        # A step's number is a view of this: creating it on the device would wait for the host.
        self.steps = torch.arange(self.total_steps, device=machine.device)

        self.graph, self.decoder, self.reconstruction = graph, decoder, reconstruction
        graph.to(self.device)
        compiled = config.machine.compile
        self.run_graph = torch.compile(graph, fullgraph=True) if compiled else graph
        self.lr = extended_cosine(lr, min_lr, (*config.extended_from, self.total_steps)).numpy()
        captured = config.machine.cuda_graph
        learnt = [p for p in graph.parameters() if p.requires_grad]
        self.adam = optimizer.adam(learnt, adam, lr, captured)
        self.run_update: Update = CudaGraph(self.update) if captured else self.update

    def step(self, step: int) -> dict[str, Tensor]:
        """Do step number `step`, counted from 0. The host reads nothing of it.

        Returns:
            Scalars to log, `loss` and `reconstruction` among them.
        """
        image_ids, class_ids, pixels = self.loader.batch(step)
        optimizer.set_learning_rate(self.adam, self.learning_rate(step))
        return self.run_update(image_ids, class_ids, self.steps[step], pixels)

    @abstractmethod
    def update(
        self, image_ids: Tensor, class_ids: Tensor, now: Tensor, pixels: Tensor
    ) -> dict[str, Tensor]:
        """What a step does on the device. The host reads nothing, so that CUDA can capture it.

        Args:
            image_ids: int64 [B].
            class_ids: int64 [B].
            now: Steps done so far, int64 scalar.
            pixels: uint8 [B, C, H, W].

        Returns:
            Scalars to log.
        """

    @abstractmethod
    def grid_codes(self, step: int, columns: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Content codes of the images `columns` and class codes of the images `rows`."""

    def learning_rate(self, step: int) -> float:
        """Learning rate of the networks at a step."""
        return float(self.lr[step])

    def state(self) -> State:
        """Everything that the steps to come depend on."""
        return {
            "decoder": self.decoder.state_dict(),
            "optimizer": optimizer.state_dict(self.adam),
        }

    def load_state(self, state: State) -> None:
        """Restore what `state` returned."""
        self.decoder.load_state_dict(state["decoder"])
        optimizer.load_state_dict(self.adam, state["optimizer"])
        if isinstance(self.run_update, CudaGraph):  # it holds the moments' old places
            self.run_update = CudaGraph(self.update)

    @torch.no_grad()
    def grid(self, step: int) -> np.ndarray:
        """A swap grid after `step` steps: content from above, class from the left.

        The images are the same each time, and the rows are of different classes.

        Returns:
            uint8 [height, width, 3].
        """
        order = permutation(self.store.num_images, self.seed, 0)
        columns = order[:GRID_COLUMNS]
        rows = self.store.first_of_each_class(order)[:GRID_ROWS]
        above, left = (as_float(self.store.images(ids)) for ids in (columns, rows))
        content, class_ = self.grid_codes(step, columns, rows)
        cells = [
            [image, *self.decoder(content, code.expand(len(content), -1))]
            for image, code in zip(left, class_, strict=True)
        ]
        return tile([[None, *above], *cells])

    def images_of(self, image_ids: Tensor) -> Iterator[Tensor]:
        """Images of the store in batches, float32 [B, C, H, W] on the device."""
        for part in image_ids.split(self.batch_size):
            yield as_float(self.store.images(part).to(self.device))

    def cache_features(self) -> FeatureCache:
        """The perceptual features of every training image, computed once.

        Raises:
            ValueError: the loss has none, or they do not fit the memory.
        """
        if not isinstance(self.reconstruction, PerceptualLoss):
            raise ValueError("--cache-target-features: this loss has no features; it needs --loss vgg16")
        with autocast(self.device, self.machine.dtype):
            images = self.images_of(torch.arange(self.store.num_images))
            return FeatureCache(self.reconstruction.vgg, images, self.store.num_images)
