"""Stage 1 jointly optimizes a content code per image, a class code per class and the generator."""

import functools
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from lord_fast.config import LossConfig, TrainConfig
from lord_fast.data.sampler import permutation
from lord_fast.data.store import ImageStore, as_float
from lord_fast.distributed.group import Group
from lord_fast.distributed.shards import whole
from lord_fast.launch import this_launch
from lord_fast.machine import Machine, autocast
from lord_fast.memory import free_memory
from lord_fast.model.build import build_decoder, build_loss, build_tables
from lord_fast.model.discrepancy import ClassDiscrepancy
from lord_fast.model.generator import Decoder
from lord_fast.model.perceptual import SCALE_IMAGES, PerceptualLoss
from lord_fast.model.streamed_table import StreamedTable
from lord_fast.model.table_place import choose_place
from lord_fast.run.checkpoint import State
from lord_fast.run.segments import Tables
from lord_fast.train import optimizer
from lord_fast.train.capture import Changed
from lord_fast.train.stage import Stage

SETTLED = 1e-3
"""Part of Adam's first moments below which they no longer move a code noticeably."""


class LatentGraph(nn.Module):
    """The dense part of a step, from codes to the loss, as one graph for torch.compile.

    Args:
        decoder: Modulation and generator.
        reconstruction: Reconstruction loss.
        loss: Weights of the penalties on content codes.
        discrepancy: Discrepancy of the classes' content codes, if it has a weight.
        dtype: Autocast dtype of the convolutions.
    """

    def __init__(
        self,
        decoder: Decoder,
        reconstruction: nn.Module,
        loss: LossConfig,
        discrepancy: ClassDiscrepancy | None,
        dtype: torch.dtype,
    ):
        super().__init__()
        self.decoder, self.reconstruction = decoder, reconstruction
        self.loss, self.discrepancy, self.dtype = loss, discrepancy, dtype

    def forward(
        self,
        content_code: Tensor,
        class_code: Tensor,
        pixels: Tensor,
        wanted: list[Tensor] | None = None,
        clean: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the loss.

        The penalty is the squared norm of the noisy content code, averaged over the batch, as in
        the published PyTorch code. The discrepancy of the classes is added to it if it has a
        weight.

        Args:
            content_code: Content codes with noise, [B, content_dim].
            class_code: Class codes, [B, class_dim].
            pixels: Target images, uint8 [B, C, H, W].
            wanted: Perceptual features of the targets if they are cached.
            clean: Content codes without noise and without gradient [B, content_dim], class ids and
                image ids, int64 [B]. Only the discrepancy needs them.

        Returns:
            The loss and its two terms, which are the reconstruction loss and the weighted penalty.
        """
        with autocast(pixels.device, self.dtype):
            images = self.decoder(content_code, class_code)
            reconstruction = self.reconstruction(images, as_float(pixels), wanted)
        penalty = self.loss.content_decay * content_code.square().sum(1).mean()
        if self.discrepancy is not None:
            assert clean is not None
            code, class_ids, image_ids = clean
            noise = content_code.detach() - code
            found = self.discrepancy(content_code - noise, class_ids, image_ids)
            penalty = penalty + self.loss.content_discrepancy * found
        return reconstruction + penalty, reconstruction, penalty


class LatentStage(Stage):
    """Stage 1 (Gabbay & Hoshen, 2020, section 3).

    Args:
        config: The run's configuration.
        store: The images.
        machine: Device, precision and threads.
        group: The processes that train together. Defaults to this process alone.
        folder: Folder for the content table's scratch file, if it has one and --table-folder names
            no other. Defaults to the system's folder for temporary files.

    Attributes:
        contents: Virtual rank of this process -> its content table.
        class_: The class table, of which every process holds a copy.

    Raises:
        ValueError: The networks, the loss or the optimizer cannot be built as configured. Or the
            store has fewer images than a batch, a single class, or a class of one image. Or the
            class table does not fit in memory, or the content table does not fit where
            --table-device says.
    """

    name = "latent"
    config: TrainConfig
    is_warm: bool
    """Whether the initial codes are not those of the seed, see `train.initial`."""
    settled: Tensor
    """For each step, the step at which Adam's first moment has moved the codes of the batch to
    where they wait for the next epoch, int64 [total_steps]. The discrepancy remembers codes as
    they are then."""

    def __init__(
        self,
        config: TrainConfig,
        store: ImageStore,
        machine: Machine,
        group: Group | None = None,
        folder: Path | None = None,
    ):
        check_trainable(store)
        decoder = build_decoder(config, store.size, store.channels).to(machine.device)
        reconstruction = build_loss(config).to(machine.device)
        self.discrepancy = (
            ClassDiscrepancy(store.num_images, config.batch_size, config.model.content_dim)
            if config.loss.content_discrepancy else None
        )  # fmt: skip
        super().__init__(
            config, store, machine, group or Group(whole(config.virtual_ranks)),
            graph=LatentGraph(
                decoder, reconstruction, config.loss, self.discrepancy, machine.dtype
            ),
            decoder=decoder, reconstruction=reconstruction,
            adam=config.adam, lr=config.adam.lr, min_lr=config.adam.min_lr,
            warmup_steps=config.adam.warmup_steps,
        )  # fmt: skip
        check_class_table(store.num_classes, config.model.class_dim, self.device)
        own = sum(self.shards.rows(shard, store.num_images) for shard in self.shards.mine)
        processes = this_launch().local_world
        self.table_place = choose_place(config, own, machine.device, folder, processes)
        self.contents, self.class_ = build_tables(
            config, store.num_images, store.num_classes, self.total_steps, self.device,
            self.shards, self.table_place,
        )  # fmt: skip
        normalized = config.loss.perceptual_scale == "normalized"
        if normalized and isinstance(reconstruction, PerceptualLoss):
            order = permutation(store.num_images, config.seed, 0)[:SCALE_IMAGES].long()
            reconstruction.measure_scale(self.images_of(order))
        self.keep_frozen_weights()
        self.features = self.cache_features() if self.form.cache_target_features.on else None
        self.is_warm = False
        if self.discrepancy is not None:
            self.settled = self._settled().to(self.device)

    def _settled(self) -> Tensor:
        """Compute `settled`. The learning rates after a schedule's end are unknown until then."""
        beta1 = self.config.adam.beta1
        moves = math.ceil(math.log(SETTLED) / math.log(beta1)) if beta1 > 0 else 0
        later = torch.arange(self.total_steps) + 1 + min(moves, self.steps_per_epoch - 1)
        for end in (*self.config.extended_from, self.total_steps):
            later[:end].clamp_(max=end)
        return later

    def step(self, step: int) -> dict[str, Tensor]:
        """See `Stage.step`. The content tables need the rows of the step on the device."""
        for shard, table in self.contents.items():
            table.load(step, functools.partial(self.sampler.rows, shard=shard))
        scalars = super().step(step)
        for table in self.contents.values():
            table.store(step)
        if self.is_warm and step == 0:
            self._count_all_rows_as_updated()
        return scalars

    def _count_all_rows_as_updated(self) -> None:
        """Make the next checkpoint hold all codes, as a warm start needs.

        Checkpoints hold only rows that were updated, and the seed gives the others. This changes
        nothing else, because Adam does not move a row without moments.
        """
        for shards in self.tables().values():
            for shard in shards.values():
                shard.last_step.clamp_(min=1)

    def update(
        self, image_ids: Tensor, class_ids: Tensor, now: Tensor, pixels: Tensor, by_class: Tensor
    ) -> dict[str, Tensor]:
        """See `Stage.update`."""
        class_grads, settled_codes = [], []
        parts = self.shards.split(image_ids, self.shards.local(image_ids), class_ids, pixels)
        for shard, (ids, rows, classes, images) in parts:
            # The codes are leaves of the graph. The content codes include noise.
            content_code = self.contents[shard].gather(rows, now, ids)
            class_code = self.class_.gather(classes, now)

            # Forward and backward pass.
            wanted = self.features[shard](rows) if self.features else None
            clean = None
            if self.discrepancy is not None:
                clean = self.contents[shard].gather(rows, now, noise=False).detach(), classes, ids
            loss, reconstruction, penalty = self.run_graph(
                content_code, class_code, images, wanted, clean
            )
            self.gradients.backward(
                {"loss": loss, "reconstruction": reconstruction, "content_penalty": penalty}
            )

            # Dense Adam at sparse cost on the content codes. An image occurs once in a batch.
            self.contents[shard].scatter_adam_(rows, content_code, now, unique=True)
            if self.discrepancy is not None:
                settled = self.contents[shard].gather(rows, self.settled.take(now), noise=False)
                settled_codes.append(settled.detach())
            assert class_code.grad is not None
            class_grads.append(class_code.grad)

        # Adam on the networks and on the class codes, equal in all processes. A class can occur
        # several times in a batch, and its gradients are added in the order of the batch.
        scalars = self.gradients.finish()
        optimizer.step(self.adam)
        gather_rows = self.group.gather_rows
        every_class = gather_rows(class_ids)
        if self.discrepancy is not None:
            codes, ids = gather_rows(torch.cat(settled_codes)), gather_rows(image_ids)
            self.discrepancy.remember(codes, every_class, ids, now)
        alone = self.group.world == 1  # else the rows are also those of other processes
        self.class_.apply_(
            every_class, gather_rows(torch.cat(class_grads)), now,
            by_row=by_class if alone else None,
        )  # fmt: skip
        return scalars

    def changed(self, image_ids: Tensor, class_ids: Tensor, *others: Tensor) -> dict[str, Changed]:
        """See `Stage.changed`."""
        found = super().changed(image_ids, class_ids) | {
            "content": [
                # A streamed table holds the rows of the batch only.
                (part, None if isinstance(table, StreamedTable) else self.shards.local(image_ids))
                for table in self.contents.values()
                for part in table.state
            ],
            "class": [(part, class_ids) for part in self.class_.state],
        }
        if self.discrepancy is not None:
            memory = self.discrepancy.state_dict()
            found["discrepancy"] = [(part, None) for part in memory.values()]
        return found

    def grid_codes(self, step: int, columns: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `Stage.grid_codes`. The content codes have no noise."""
        columns = columns.to(self.device)
        content = torch.zeros(len(columns), self.config.model.content_dim, device=self.device)
        for shard, table in self.contents.items():
            own = columns % self.shards.count == shard
            content[own] = table.codes(step, self.shards.local(columns[own]))
        content = self.group.select(content, columns)
        return content, self.class_.codes(step, self.store.class_ids[rows].to(self.device))

    def state(self) -> State:
        """Return the state of the networks, the optimizer, the loss and the discrepancy."""
        state = super().state() | {"loss": self.reconstruction.state_dict()}
        if self.discrepancy is not None:
            state["discrepancy"] = self.discrepancy.state_dict()
        return state

    def tables(self) -> Tables:
        """Return the content tables of this process and the class table."""
        return {"content": self.contents, "class": {0: self.class_}}

    def close(self) -> None:
        """Free the scratch files of the content tables and end their threads."""
        for table in self.contents.values():
            table.close()

    def load_state(self, state: State) -> None:
        """Restore a state from `state`."""
        super().load_state(state)
        self.reconstruction.load_state_dict(state["loss"])
        if self.discrepancy is not None:
            self.discrepancy.load_state_dict(state["discrepancy"])


def check_class_table(num_classes: int, dim: int, device: torch.device) -> None:
    """Check that every process of this machine can hold a copy of the class table.

    Raises:
        ValueError: The tables do not fit in the free memory.
    """
    copies = this_launch().local_world if device.type == "cpu" else 1
    a_class, an_image = 12 * dim + 8, 4 * dim + 8
    needed, free = copies * num_classes * a_class, free_memory(device)
    if needed > free:
        raise ValueError(
            f"{num_classes:,} classes: every process holds all class codes, {a_class:,} bytes a "
            f"class, and exchanges {an_image:,} bytes an image of the batch in every step; "
            f"{copies} x {num_classes * a_class / 2**30:.1f} GiB are needed and "
            f"{free / 2**30:.1f} GiB are free; use a smaller --class-dim or fewer processes on "
            f"this machine"
        )


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
