"""A latent table whose rows lie in a file or in host memory. Only a step's rows are on the device.

A row is used once in an epoch, in an order that is known beforehand. So a cache would never hit,
and reading ahead always does. A thread reads the rows of the coming steps into blocks. The kernels
run on a block as on a small table, with the noise of the global ids. Another thread writes the
block back. The results are those of a table in memory, bit for bit.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from lord_fast import kernels
from lord_fast.memory import ask_for_huge_pages
from lord_fast.model.latent import CHUNK_ROWS, INITIAL_ROWS, LatentTable, initial_codes
from lord_fast.model.row_storage import PARTS, RowStorage

AHEAD = 8
"""Number of steps whose rows are read ahead."""
MOST_UNWRITTEN = 32
"""Number of blocks that may wait to be written. Training waits if the storage is slower."""

RowsOf = Callable[[int], Tensor]
"""The rows of a step, int64 [B] on the CPU, without repeats."""


class Block:
    """The rows of one step in host memory, in ascending order.

    The order is that in which the kernels visit the rows of a table in memory, so that every
    implementation gives the same bits.

    Args:
        count: Number of rows.
        dim: Length of a code.
        pinned: Whether to use page-locked memory, which a GPU copies from asynchronously.
    """

    def __init__(self, count: int, dim: int, pinned: bool):
        values = torch.empty(count, PARTS, dim, pin_memory=pinned)
        last_step = torch.empty(count, dtype=torch.int64, pin_memory=pinned)
        self.values, self.table = values, _as_table(values, last_step, 1)
        self.slots = torch.empty(count, dtype=torch.int64, pin_memory=pinned)
        self.array, self.rows = values.numpy(), np.empty(count, dtype=np.int64)
        self.step = -1
        self.on_file = 0
        """Rows with a `last_step` up to this one were written when this block was read."""
        self.copied: torch.cuda.Event | None = None
        self.written: Future[None]

    def name_rows(self, rows: Tensor) -> None:
        """Set the rows and the slot of each place of the batch."""
        order = np.argsort(rows.numpy())
        self.rows = rows.numpy()[order]
        self.slots.numpy()[order] = np.arange(len(order))
        assert (np.diff(self.rows) > 0).all(), "a row repeats"

    def wait_for_copy(self) -> None:
        """Wait until the GPU has copied its results to this block."""
        if self.copied is not None:
            self.copied.synchronize()
            self.copied = None


class Threads:
    """A thread that reads and a thread that writes, for the tables of all virtual ranks."""

    def __init__(self) -> None:
        self.reader = ThreadPoolExecutor(1, thread_name_prefix="table-reader")
        self.writer = ThreadPoolExecutor(1, thread_name_prefix="table-writer")


class StreamedTable(LatentTable):
    """A `LatentTable` whose rows lie in a `RowStorage`. Only `last_step` is in memory.

    `load` must come before the `gather` of a step, and `store` after its `scatter_adam_`. They run
    outside of a captured CUDA graph.

    Args:
        make_storage: Creates the storage at first use, when the run's folder is locked.
        num_rows: Number of images.
        dim: Length of a code.
        lr: See `LatentTable`.
        adam: Adam's constants.
        seed: See `LatentTable`.
        std: See `LatentTable`.
        device: Device of the training steps.
        shard: See `LatentTable`.
        threads: Threads that several tables share. Defaults to new ones.
    """

    def __init__(
        self,
        make_storage: Callable[[], RowStorage],
        num_rows: int,
        dim: int,
        lr: Tensor,
        *,
        adam: kernels.Adam,
        seed: int,
        std: float = 0.0,
        device: torch.device | str = "cpu",
        shard: int = 0,
        threads: Threads | None = None,
    ):
        kernels.replay_terms(adam.beta1, adam.beta2)
        self.lr, self.adam, self.seed, self.std = lr.to(device), adam, seed, std
        self._dim, self.device, self.shard = dim, torch.device(device), shard
        self._last_step = torch.empty(num_rows, dtype=torch.int64)
        ask_for_huge_pages(self._last_step)
        self._last_step.zero_()
        self._make_storage = make_storage
        self._storage: RowStorage | None = None
        self._threads = threads or Threads()
        self._ahead: dict[int, tuple[Block, Future[None]]] = {}
        self._loaded: Block | None = None
        # Blocks that may be newer than the storage or than a block that was read ahead. The first
        # ones are written already.
        self._stored: deque[Block] = deque()
        self._free: list[Block] = []
        self._on_file = 0
        # On a CPU the kernels run on the block itself.
        self._copies = self.device.type != "cpu"
        self._staged: Tensor | None = None

    @property
    def num_rows(self) -> int:
        """See `LatentTable.num_rows`."""
        return len(self._last_step)

    @property
    def dim(self) -> int:
        """See `LatentTable.dim`."""
        return self._dim

    @property
    def last_step(self) -> Tensor:
        """See `LatentTable.last_step`. It is in host memory."""
        return self._last_step

    @property
    def storage(self) -> RowStorage:
        """The rows. They are created with the initial codes at first use."""
        if self._storage is None:
            storage = self._make_storage()
            try:
                self._write_initial(storage)
            except BaseException:
                storage.close()
                raise
            self._storage = storage
        return self._storage

    def reset(self) -> None:
        """Return to the initial codes."""
        self._forget()
        self.last_step.zero_()
        if self._storage is not None:
            self._write_initial(self._storage)

    def load(self, step: int, rows_of: RowsOf) -> None:
        """Put the rows of a step on the device, and start to read those of the next steps.

        Args:
            step: Number of the step, counted from 0.
            rows_of: Names the rows of this and of later steps.

        Raises:
            OSError: Rows could not be read, or those of an earlier step could not be written.
        """
        self._collect_written()
        self._read_ahead(range(step, step + 1 + AHEAD), rows_of)
        block, read = self._ahead.pop(step)
        read.result()
        self._take_newer(block)
        np.take(self.last_step.numpy(), block.rows, out=block.table.last_step.numpy(), mode="clip")
        self._loaded = block
        if self._copies:
            self._copy_to_device(block)
        else:
            self.state, self._slots = block.table, block.slots

    @torch.no_grad()
    def gather(
        self, rows: Tensor, step: Tensor, noise_ids: Tensor | None = None, noise: bool = True
    ) -> Tensor:
        """See `LatentTable.gather`. `rows` are those of the step that was loaded."""
        return super().gather(self._slots, step, rows if noise_ids is None else noise_ids, noise)

    @torch.no_grad()
    def scatter_adam_(
        self, rows: Tensor, codes: Tensor, step: Tensor, unique: bool = False
    ) -> None:
        """See `LatentTable.scatter_adam_`. `rows` are those of the step that was loaded."""
        super().scatter_adam_(self._slots, codes, step, unique)

    def store(self, step: int) -> None:
        """Write the rows of the loaded step back, without waiting.

        Raises:
            OSError: Rows of an earlier step could not be written.
        """
        block, self._loaded = self._loaded, None
        assert block is not None, "load comes first"
        if self._copies:
            self._copy_from_device(block)
        block.step = step
        self.last_step.numpy()[block.rows] = step + 1
        block.written = self._threads.writer.submit(self._write, block)
        self._stored.append(block)
        if len(self._stored) > MOST_UNWRITTEN:
            self._stored[-MOST_UNWRITTEN].written.result()

    def flush(self) -> None:
        """Wait until the storage holds all rows.

        Raises:
            OSError: Rows could not be written.
        """
        for block in self._stored:
            block.written.result()
        self._collect_written()

    @torch.no_grad()
    def codes(self, step: int, rows: Tensor | None = None) -> Tensor:
        """See `LatentTable.codes`."""
        rows = torch.arange(self.num_rows) if rows is None else rows.cpu()
        now = torch.tensor(step, device=self.device)
        found = torch.empty(len(rows), self.dim, device=self.device)
        for start in range(0, len(rows), CHUNK_ROWS):
            part = {
                k: v.to(self.device) for k, v in self.read_rows(rows[start:][:CHUNK_ROWS]).items()
            }
            places = torch.arange(len(part["last_step"]), device=self.device)
            found[start : start + len(places)] = kernels.gather(
                kernels.Table(**part), places, self.lr, now, adam=self.adam
            )
        return found

    def read_rows(self, rows: Tensor) -> dict[str, Tensor]:
        """See `LatentTable.read_rows`.

        Raises:
            OSError: Rows could not be written or read.
        """
        self.flush()
        rows = rows.cpu()
        values = torch.empty(len(rows), PARTS, self.dim)
        self.storage.read(rows.numpy(), values.numpy())
        return _as_table(values, self.last_step[rows], 1)._asdict()

    def write_rows(self, rows: Tensor, values: Mapping[str, Tensor]) -> None:
        """See `LatentTable.write_rows`.

        Raises:
            OSError: Rows could not be written.
        """
        self._forget()
        rows = rows.cpu()
        parts = torch.stack([values[name].cpu() for name in kernels.Table._fields[:PARTS]], 1)
        self.storage.write(rows.numpy(), parts.numpy())
        self.last_step[rows] = values["last_step"].cpu()

    def close(self) -> None:
        """End the threads and free the storage."""
        self._threads.reader.shutdown(cancel_futures=True)
        self._threads.writer.shutdown(cancel_futures=True)
        if self._storage is not None:
            self._storage.close()

    def _write_initial(self, storage: RowStorage) -> None:
        row = 0
        values = np.zeros((min(INITIAL_ROWS, self.num_rows), PARTS, self.dim), dtype=np.float32)
        for codes in initial_codes(self.num_rows, self.dim, self.seed, self.shard):
            values[: len(codes), 0] = codes.numpy()
            storage.write(np.arange(row, row + len(codes)), values[: len(codes)])
            row += len(codes)

    def _read_ahead(self, steps: Iterable[int], rows_of: RowsOf) -> None:
        """Start to read the rows of some steps, and drop those of all others."""
        for other in set(self._ahead) - set(steps):
            self._drop(other)
        storage = self.storage
        for step in steps:
            if step not in self._ahead:
                rows = rows_of(step)
                block = self._new_block(len(rows))
                block.on_file = self._on_file
                self._ahead[step] = block, self._threads.reader.submit(_read, storage, block, rows)

    def _take_newer(self, block: Block) -> None:
        """Copy rows that were in flight, or were updated, after the block was read."""
        if not (self.last_step.numpy()[block.rows] > block.on_file).any():
            return
        for newer in self._stored:  # the newest one last
            _, mine, theirs = np.intersect1d(
                block.rows, newer.rows, assume_unique=True, return_indices=True
            )
            if len(mine):
                newer.wait_for_copy()
                block.array[mine] = newer.array[theirs]

    def _collect_written(self) -> None:
        """Note which blocks are written, raise their errors and reuse those that none may need."""
        for block in self._stored:
            if not block.written.done():
                break
            block.written.result()
            self._on_file = max(self._on_file, block.step + 1)
        oldest = min([self._on_file, *(block.on_file for block, _ in self._ahead.values())])
        while self._stored and self._stored[0].step + 1 <= oldest:
            self._free.append(self._stored.popleft())

    def _write(self, block: Block) -> None:
        block.wait_for_copy()
        self.storage.write(block.rows, block.array)

    def _forget(self) -> None:
        """Write what is in flight and drop everything that was read ahead.

        Afterwards `last_step` may become smaller, so nothing is known to be on file.
        """
        self.flush()
        for step in list(self._ahead):
            self._drop(step)
        self._free.extend(self._stored)
        self._stored.clear()
        self._on_file = 0

    def _drop(self, step: int) -> None:
        block, read = self._ahead.pop(step)
        if read.cancel() or read.exception() is None:  # waits for a read that has begun
            self._free.append(block)

    def _new_block(self, count: int) -> Block:
        while self._free:
            block = self._free.pop()
            if len(block.rows) == count:
                return block
        return Block(count, self.dim, pinned=self.device.type == "cuda")

    def _copy_to_device(self, block: Block) -> None:
        """Copy a block to tensors that stay where they are, because a CUDA graph refers to them."""
        if self._staged is None or len(self._staged) != len(block.rows):
            self._staged = torch.empty_like(block.values, device=self.device)
            parts = torch.empty(PARTS, len(block.rows), self.dim, device=self.device)
            last_step = torch.empty_like(block.table.last_step, device=self.device)
            self._parts, self.state = parts, _as_table(parts, last_step, 0)
            self._slots = torch.empty_like(block.slots, device=self.device)
        self._staged.copy_(block.values, non_blocking=True)
        self._parts.copy_(self._staged.transpose(0, 1))
        self.state.last_step.copy_(block.table.last_step, non_blocking=True)
        self._slots.copy_(block.slots, non_blocking=True)

    def _copy_from_device(self, block: Block) -> None:
        assert self._staged is not None
        self._staged.copy_(self._parts.transpose(0, 1))
        block.values.copy_(self._staged, non_blocking=True)
        if self.device.type == "cuda":
            block.copied = torch.cuda.Event()
            block.copied.record()


def _as_table(values: Tensor, last_step: Tensor, dim: int) -> kernels.Table:
    weight, exp_avg, exp_avg_sq = values.unbind(dim)
    return kernels.Table(weight, exp_avg, exp_avg_sq, last_step)


def _read(storage: RowStorage, block: Block, rows: Tensor) -> None:
    block.name_rows(rows)
    storage.read(block.rows, block.array)
