"""A group of processes that torchrun started. PyTorch's process groups move the bytes."""

import concurrent.futures
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import TracebackType

import torch
import torch.distributed as dist
from torch import Tensor

from lord_fast.distributed.group import Group
from lord_fast.distributed.ordered import pairwise
from lord_fast.distributed.shards import Shards, block
from lord_fast.errors import Ended, Interrupted, explain
from lord_fast.launch import Launch

START = timedelta(minutes=30)
"""Time that a process may arrive later than the others. torchrun ends all of them if one ends."""
POLL = 1.0
"""Seconds between two looks at work that may take longer than the time-out."""
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
"""The same function. PyTorch 2.13 gave it another name."""
LOOK = 2.0
"""Seconds in which the processes say that they are still there, after a collective failed."""


class Processes(Group):
    """The processes of torchrun.

    Tensors on a GPU move with NCCL if every process has a GPU of its own. Otherwise they move
    through host memory with gloo. Flags and texts always move with gloo.

    Args:
        launch: How this process was started.
        shards: The virtual ranks.
        device: Device of the tensors.
        timeout: Seconds that a collective may take.
    """

    def __init__(self, launch: Launch, shards: Shards, device: torch.device, timeout: float):
        super().__init__(shards)
        self.rank, self.world = launch.rank, launch.world
        own_gpu = device.type == "cuda" and launch.local_world <= torch.cuda.device_count()
        self.device = device if own_gpu else torch.device("cpu")
        self.timeout = timedelta(seconds=timeout)
        self._pending: tuple[dist.Work, Tensor] | None = None
        self._store: dist.Store = dist.HashStore()
        self._control: dist.ProcessGroup | None = None
        self._worker = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="together")

    def __enter__(self) -> "Processes":
        """Wait for the other processes and connect to them."""
        with self._watched():
            # The store lives in process 0 and is new in every life of the processes.
            store, _, _ = next(dist.rendezvous("env://", timeout=START))
            store.set(f"here/{self.rank}", "")
            store.wait([f"here/{rank}" for rank in range(self.world)], START)
            self._store = store
            dist.init_process_group(
                "nccl" if self.device.type == "cuda" else "gloo",
                store=dist.PrefixStore("group", store),
                rank=self.rank, world_size=self.world, timeout=self.timeout,
                device_id=self.device if self.device.type == "cuda" else None,
            )  # fmt: skip
            self._control = dist.group.WORLD
            if self.device.type == "cuda":
                self._control = dist.new_group(backend="gloo", timeout=self.timeout)
            self.agree([0])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Leave the group if all processes end in the same way.

        Raises:
            Ended: Another error, which is of this process only and now names it.
        """
        if error is None or isinstance(error, Interrupted):
            if self._pending is not None:
                self._pending[0].wait()
            self.agree([0])
            dist.destroy_process_group()
        elif isinstance(error, Exception) and not isinstance(error, Ended):
            code, line = explain(error, "")
            raise Ended(f"process {self.rank}, step {self.step}: {line}", code) from error

    def sum(self, values: Tensor) -> Tensor:
        """See `Group.sum`. A process sends 2 (W - 1) / W of the tensor, as a ring does."""
        size = -(-len(values) // self.world)
        padded = torch.nn.functional.pad(values, (0, size * self.world - len(values)))
        pieces, total = torch.empty_like(padded, device=self.device), None
        with self._watched():
            dist.all_to_all_single(pieces, padded.to(self.device))
            mine = pairwise(pieces.view(self.world, size)).contiguous()
            total = torch.empty_like(pieces)
            _all_gather(total, mine)
        return total[: len(values)].to(values.device)

    def gather_rows(self, rows: Tensor) -> Tensor:
        """See `Group.gather_rows`."""
        sent = rows.to(self.device).contiguous()
        found = sent.new_empty(self.world * len(sent), *sent.shape[1:])
        with self._watched():
            _all_gather(found, sent)
        return found.to(rows.device)

    def agree(self, flags: Sequence[int]) -> list[int]:
        """See `Group.agree`."""
        values = torch.tensor(flags, dtype=torch.int64)
        with self._watched():
            dist.all_reduce(values, dist.ReduceOp.MAX, self._control)
        return values.tolist()

    def share(self, flags: Sequence[int]) -> list[int]:
        """See `Group.share`."""
        values, before = torch.tensor(flags, dtype=torch.int64), self._pending
        with self._watched():
            work = dist.all_reduce(values, dist.ReduceOp.MAX, self._control, async_op=True)
            self._pending = (work, values)
            if before is None:
                return [0] * len(flags)
            before[0].wait()
        return before[1].tolist()

    def gather_texts(self, text: str) -> list[str]:
        """See `Group.gather_texts`."""
        content = text.encode()
        longest = self.agree([len(content)])[0]
        sent = torch.zeros(8 + longest, dtype=torch.uint8)
        head = len(content).to_bytes(8, "little")
        sent[: 8 + len(content)] = torch.frombuffer(bytearray(head + content), dtype=torch.uint8)
        found = [torch.empty_like(sent) for _ in range(self.world)]
        with self._watched():
            dist.all_gather(found, sent, self._control)
        return [_text(piece.numpy().tobytes()) for piece in found]

    def together(self, work: Callable[[], None]) -> None:
        """See `Group.together`. Processes that are done look once a second for the others."""
        future = self._worker.submit(work)
        while self.agree([len(concurrent.futures.wait([future], POLL).not_done)])[0]:
            pass
        error = future.exception()
        codes = self.gather_texts(str(explain(error, "")[0]) if error else "")
        if error is not None:
            raise error
        failed = [int(code) for code in codes if code]
        if failed:
            raise Ended("", failed[0])

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Turn the failure of a collective into one line that names the process that is missing."""
        start = time.monotonic()
        try:
            yield
        except RuntimeError as error:  # dist.DistError is one
            waited = time.monotonic() - start
            reason = " ".join(str(error).split())
            raise Ended(
                f"process {self.rank}, step {self.step}: {self._missing()} did not answer for "
                f"{waited:.1f} s ({reason[:200]}); repeat the command to continue"
            ) from error

    def _missing(self) -> str:
        """Name the processes that do not say within a short time that they are still there."""
        found: list[int] = []
        # A stopped process 0, which holds the store, could block this call.
        asked = threading.Thread(target=self._ask, args=(found,), daemon=True)
        asked.start()
        asked.join(LOOK + 1)
        missing = [rank for rank in range(self.world) if rank not in (*found, self.rank)]
        if not missing:
            return "another process"
        names = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        return f"process{'es' if len(missing) > 1 else ''} {names}"

    def _ask(self, found: list[int]) -> None:
        """Collect the processes that have noticed the failure too."""
        end = time.monotonic() + LOOK
        # The store fails if its process has ended.
        with suppress(RuntimeError):
            self._store.set(f"noticed/{self.rank}", "")
            for rank in range(self.world):
                left = max(end - time.monotonic(), 0.01)
                with suppress(dist.DistStoreError):
                    self._store.wait([f"noticed/{rank}"], timedelta(seconds=left))
                    found.append(rank)


def open_group(launch: Launch, count: int, device: torch.device, timeout: float) -> Group:
    """Return the processes that torchrun started, or this process alone.

    Args:
        launch: How this process was started.
        count: Number of virtual ranks.
        device: Device of the tensors.
        timeout: Seconds that a collective may take.

    Raises:
        ValueError: The processes cannot share the virtual ranks equally.
    """
    shards = block(count, launch.rank, launch.world)
    return Group(shards) if launch.world == 1 else Processes(launch, shards, device, timeout)


def _text(content: bytes) -> str:
    size = int.from_bytes(content[:8], "little")
    return content[8 : 8 + size].decode()
