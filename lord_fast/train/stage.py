"""The base class of both stages. Each stage adds its networks, its inputs and its update."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from lord_fast.config import AdamConfig, StageConfig
from lord_fast.data.loader import Loader
from lord_fast.data.names import content_label
from lord_fast.data.pairs import true_images
from lord_fast.data.sampler import EpochSampler, permutation
from lord_fast.data.store import ImageStore, as_float, read_image
from lord_fast.distributed.group import Group
from lord_fast.grid import swaps
from lord_fast.machine import Machine, autocast
from lord_fast.model.features import FeatureCache
from lord_fast.model.generator import Decoder
from lord_fast.model.perceptual import PerceptualLoss
from lord_fast.model.schedule import extended_cosine, warm_up
from lord_fast.run.checkpoint import State
from lord_fast.run.codes import Stage as StageName
from lord_fast.run.saved import SavedTable
from lord_fast.run.segments import Tables
from lord_fast.train import form, optimizer
from lord_fast.train.capture import Changed, CudaGraph, Update
from lord_fast.train.gradients import GradientSum

GRID_ROWS, GRID_COLUMNS = 8, 10
FIRST_TRAINED = 100
"""Steps after which generated images no longer look like those of an untrained network."""
LEAST_SPREAD = 0.01
"""Smallest standard deviation of generated images at a pixel, relative to that of real images.
Below it the generator has collapsed."""


class Stage(ABC):
    """A stage of training, which `lord_fast.train.loop` runs.

    Args:
        config: The stage's configuration.
        store: The images.
        machine: Device, precision and threads.
        group: The processes that train together.
        graph: The dense part of a step, from codes or pixels to the loss. torch.compile compiles
            it as one graph.
        decoder: Modulation and generator, a part of `graph`.
        reconstruction: The reconstruction loss, a part of `graph`.
        adam: Betas, epsilon and implementation of Adam.
        lr: Learning rate of the networks at the first step, before the warm-up.
        min_lr: Learning rate of the networks at the end of the cosine schedule.
        warmup_steps: Number of first steps in which their learning rate rises.

    Attributes:
        name: latent or encoders.
        total_steps: Number of steps of the stage.
        steps_per_epoch: Number of steps of one pass over the images.
        batch_size: Images per step.
        form: How this machine computes the stage.

    Raises:
        ValueError: The store has fewer images than a batch, or the machine cannot compute the stage
            as a flag asks.
    """

    name: StageName

    def __init__(
        self,
        config: StageConfig,
        store: ImageStore,
        machine: Machine,
        group: Group,
        *,
        graph: nn.Module,
        decoder: Decoder,
        reconstruction: nn.Module,
        adam: AdamConfig,
        lr: float,
        min_lr: float,
        warmup_steps: int = 0,
    ):
        self.config: StageConfig = config
        self.store, self.machine, self.device = store, machine, machine.device
        self.group, self.shards = group, group.shards
        self.batch_size, self.seed = config.batch_size, config.seed
        self.sampler = EpochSampler(store.num_images, config.batch_size, config.seed, self.shards)
        self.loader = Loader(store, self.sampler, machine.device)
        self.steps_per_epoch = self.sampler.steps_per_epoch
        self.total_steps = config.total_steps(store.num_images)
        # Step numbers are views of this tensor, which avoids a copy from the host at every step.
        self.steps = torch.arange(self.total_steps, device=machine.device)

        self.graph, self.decoder, self.reconstruction = graph, decoder, reconstruction
        graph.to(self.device)
        self.form = form.choose(config.machine, machine, self._work(adam.optimizer))
        torch.backends.cudnn.benchmark = self.form.cudnn_benchmark.on
        self.run_graph = torch.compile(graph, fullgraph=True) if self.form.compile.on else graph
        rates = extended_cosine(lr, min_lr, (*config.extended_from, self.total_steps))
        self.lr = warm_up(rates, warmup_steps).numpy()
        learnt = [p for p in graph.parameters() if p.requires_grad]
        # On CUDA the eager step uses Adam in the form of the captured step, for the same rounding.
        on_device = machine.device.type == "cuda" and adam.optimizer == "torch"
        self.adam = optimizer.adam(learnt, adam, lr, captured=on_device)
        self.gradients = GradientSum(learnt, group)
        self.run_update = self._update()

    def _work(self, optimizer: str) -> form.Work:
        loss = self.reconstruction
        features = None
        if isinstance(loss, PerceptualLoss):
            features = loss.vgg.feature_bytes(self.store.size, self.machine.dtype)
        return form.Work(
            self.total_steps, self.batch_size, self.store.num_images, features, optimizer,
            self.shards.count,
        )  # fmt: skip

    def _update(self) -> Update:
        """Return the update, captured or not."""
        graph = self.form.cuda_graph
        return CudaGraph(self.update, self.changed, graph.set) if graph.on else self.update

    def begin(self) -> None:  # noqa: B027 (most stages need nothing)
        """Prepare what needs the other processes, once before the first step or a restored one."""

    def step(self, step: int) -> dict[str, Tensor]:
        """Train one step without waiting for the device.

        Args:
            step: Number of the step, counted from 0.

        Returns:
            Scalars to log, including `loss` and `reconstruction`.
        """
        self.group.step = step + 1
        image_ids, class_ids, pixels, by_class = self.loader.batch(step)
        optimizer.set_learning_rate(self.adam, self.learning_rate(step))
        return self.run_update(image_ids, class_ids, self.steps[step], pixels, by_class)

    @abstractmethod
    def update(
        self, image_ids: Tensor, class_ids: Tensor, now: Tensor, pixels: Tensor, by_class: Tensor
    ) -> dict[str, Tensor]:
        """Do the part of a step that runs on the device.

        With one virtual rank it must not read tensors on the host, so that a CUDA graph can capture
        it. The arguments hold the images of this process, in the order of its virtual ranks.

        Args:
            image_ids: int64 [B].
            class_ids: int64 [B].
            now: Number of completed steps, int64 scalar.
            pixels: uint8 [B, C, H, W].
            by_class: The class ids in ascending order and the batch position of each, int64 [2, B].

        Returns:
            Scalars to log.
        """

    def changed(self, image_ids: Tensor, class_ids: Tensor, *others: Tensor) -> dict[str, Changed]:
        """Name the tensors that `update` changes with these arguments, once it has been called.

        Returns:
            Groups of tensors, each with the rows that change or None for all of them.
        """
        moments = optimizer.state_dict(self.adam).values()
        learnt = [p.detach() for p in self.graph.parameters() if p.requires_grad]
        return {
            "networks": [(tensor, None) for tensor in learnt],
            "optimizer": [(tensor, None) for tensor in moments],
        }

    @abstractmethod
    def grid_codes(self, step: int, columns: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return content codes of the images `columns` and class codes of the images `rows`."""

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of the networks at a step."""
        return float(self.lr[step])

    def state(self) -> State:
        """Return everything that later steps depend on, except for `tables`."""
        return {
            "decoder": self.decoder.state_dict(),
            "optimizer": optimizer.state_dict(self.adam),
        }

    def tables(self) -> Tables:
        """Return the latent tables that this stage trains."""
        return {}

    def load_tables(self, saved: Mapping[str, SavedTable]) -> None:
        """Restore `tables` from a checkpoint."""
        for name, shards in self.tables().items():
            for shard in shards.values():
                if shard.last_step.any():
                    shard.reset()
            saved[name].load_into(shards)

    def load_state(self, state: State) -> None:
        """Restore a state from `state`."""
        self.decoder.load_state_dict(state["decoder"])
        optimizer.load_state_dict(self.adam, state["optimizer"])
        self.run_update = self._update()  # A graph refers to the old moments' memory.

    @torch.no_grad()
    def swapped(self, step: int) -> Tensor:
        """Generate the images of a swap grid.

        An image takes its content from the source above its column and its class from the source
        at the left of its row. The sources are the same in every grid, and each row has another
        class.

        Args:
            step: Number of completed steps.

        Returns:
            Images in [0, 1], [rows, columns, C, H, W].
        """
        content, class_ = self.grid_codes(step, *self._grid_sources())
        return torch.stack([self.decoder(content, c.expand(len(content), -1)) for c in class_])

    def grid(self, made: Tensor) -> np.ndarray:
        """Draw a swap grid. The true images stand below where the store has them.

        Args:
            made: The images of `swapped`.

        Returns:
            uint8 [height, width, 3].
        """
        columns, rows = self._grid_sources()
        above, left = (as_float(self.store.images(ids)) for ids in (columns, rows))
        class_ids = self.store.class_ids[rows]
        contents = [
            (content_label(self.store, i) or f"image {i}", image)
            for i, image in zip(columns.tolist(), above, strict=True)
        ]
        classes = [
            (self.store.class_names[i], image)
            for i, image in zip(class_ids.tolist(), left, strict=True)
        ]
        found = true_images(self.store, class_ids, columns).tolist()
        true = [[None if i < 0 else read_image(self.store, i) for i in row] for row in found]
        return swaps(contents, classes, [list(row) for row in made], true)

    def is_collapsed(self, made: Tensor, step: int) -> bool:
        """Return whether all generated images are nearly alike, which training does not undo.

        Args:
            made: The images of `swapped`.
            step: Number of completed steps. The images of a young generator are alike too, so the
                answer is False before `FIRST_TRAINED`.
        """
        if step < FIRST_TRAINED:
            return False
        real = as_float(self.store.images(self._grid_sources()[0]))
        spread, wanted = (x.std(0).mean().item() for x in (made.flatten(0, 1), real))
        return spread < LEAST_SPREAD * wanted

    def _grid_sources(self) -> tuple[Tensor, Tensor]:
        """Return the images above the columns of a grid and at the left of its rows."""
        order = permutation(self.store.num_images, self.seed, 0)
        columns = order[:GRID_COLUMNS].long()
        return columns, self.store.first_of_each_class(order, GRID_ROWS)

    def keep_frozen_weights(self) -> None:
        """Keep the weights of VGG16 in the dtype of the convolutions."""
        if isinstance(self.reconstruction, PerceptualLoss):
            self.reconstruction.vgg.keep_in(self.machine.dtype)

    def images_of(self, image_ids: Tensor) -> Iterator[Tensor]:
        """Yield images of the store in batches, float32 [B, C, H, W] on the device."""
        for part in image_ids.split(self.batch_size):
            yield as_float(self.store.images(part).to(self.device))

    def cache_features(self) -> dict[int, FeatureCache]:
        """Compute the perceptual features of the images of each virtual rank of this process.

        Raises:
            ValueError: They do not fit in memory.
        """
        assert isinstance(self.reconstruction, PerceptualLoss)
        vgg, found = self.reconstruction.vgg, {}
        with autocast(self.device, self.machine.dtype):
            for shard in self.shards.mine:
                image_ids = torch.arange(shard, self.store.num_images, self.shards.count)
                images = self.images_of(image_ids)
                found[shard] = FeatureCache(vgg, images, len(image_ids))
        return found
