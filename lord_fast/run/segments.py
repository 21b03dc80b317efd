"""Plans which rows of a latent table a save writes, so that a save costs what changed.

A table is saved as a log of segments. A save writes one segment with the rows that were updated
since the previous save and links the older segments from the previous checkpoint. Reading applies
them oldest first onto the initial table. Every row has one segment that holds its present values:
the one whose interval of steps contains the row's `last_step`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

BLOCK = 262_144
"""Most rows in one file, and in memory while a table is saved or loaded."""
MOST_SEGMENTS = 1024
"""Most segments of a shard. When there are more, the oldest half is rewritten."""
PARTS = ("weight", "exp_avg", "exp_avg_sq", "last_step")


class Shard(Protocol):
    """A latent table, or the part of one that this process holds, as a checkpoint sees it.

    Attributes:
        num_rows: Number of rows n.
        dim: Length of a code.
        last_step: Step of each row's last update, 0 before the first, int64 [n] on any device.
    """

    @property
    def num_rows(self) -> int: ...  # noqa: D102
    @property
    def dim(self) -> int: ...  # noqa: D102
    @property
    def last_step(self) -> Tensor: ...  # noqa: D102

    def read_rows(self, rows: Tensor) -> dict[str, Tensor]:
        """Copy rows to the host.

        Args:
            rows: int64 [k], on any device, without repetitions.

        Returns:
            weight, exp_avg and exp_avg_sq, float32 [k, dim], and last_step, int64 [k].
        """
        ...

    def write_rows(self, rows: Tensor, values: Mapping[str, Tensor]) -> None:
        """Set rows to what `read_rows` returned for them."""
        ...

    def reset(self) -> None:
        """Set all rows to their initial values."""
        ...


Tables = Mapping[str, Mapping[int, Shard]]
"""Name of a table -> number of a shard -> the shard. An ordinary run has only shard 0."""


class Segment(NamedTuple):
    """One save's rows of a shard.

    Attributes:
        files: Names of its files in the checkpoint's folder. Each holds `BLOCK` rows at most.
        rows: Number of rows.
        steps: The segment holds the present values of the rows whose `last_step` lies in one of
            these intervals (low, high], each a list [low, high].
    """

    files: list[str]
    rows: int
    steps: list[list[int]]


class Plan(NamedTuple):
    """What a save does with a shard.

    Attributes:
        kept: Segments to link from the previous checkpoint, oldest first.
        new: The segment to write, or None if no row has changed.
        rows: Rows of the new segment in ascending order, int64 [new.rows] on the shard's device.
            None means all rows.
    """

    kept: list[Segment]
    new: Segment | None
    rows: Tensor | None

    @property
    def segments(self) -> list[Segment]:
        """All segments of the shard after the save, oldest first."""
        return [*self.kept, *([self.new] if self.new else [])]


def plan(shard: Shard, stem: str, step: int, older: Sequence[Segment] = (), since: int = 0) -> Plan:
    """Plan a save of a shard.

    Args:
        shard: The shard.
        stem: Beginning of the names of the new segment's files, see `stem_of`.
        step: Number of completed steps.
        older: Segments of the previous checkpoint.
        since: Step of the previous checkpoint. 0 is the initial table, which has no segments.

    Returns:
        The plan. The new segment holds all rows if at least half of them would be written.
    """
    size = shard.num_rows
    rows = (shard.last_step > since).nonzero()[:, 0]
    kept, steps = list(older), [[since, step]]
    if _is_too_much(kept, len(rows), size):
        kept, carried, more = _clean(shard.last_step, kept, len(rows))
        rows = torch.cat([rows, more]).sort().values
        steps = _joined([*carried, *steps])
    if 2 * len(rows) >= size:
        return _full(size, stem, step)
    if not len(rows):
        return Plan(kept, None, rows)
    return Plan(kept, Segment(_files(stem, step, len(rows)), len(rows), steps), rows)


def read_blocks(shard: Shard, planned: Plan) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the files of a new segment and their tensors, one block of rows at a time."""
    if planned.new is None:
        return
    for number, file in enumerate(planned.new.files):
        start, stop = number * BLOCK, min((number + 1) * BLOCK, planned.new.rows)
        rows = torch.arange(start, stop) if planned.rows is None else planned.rows[start:stop]
        yield file, {"rows": rows.cpu(), **shard.read_rows(rows)}


def stem_of(name: str, number: int) -> str:
    """Return the beginning of the names of a shard's files, such as content-0000."""
    return f"{name}-{number:04d}"


def _full(size: int, stem: str, step: int) -> Plan:
    return Plan([], Segment(_files(stem, step, size), size, [[-1, step]]), None)


def _files(stem: str, step: int, rows: int) -> list[str]:
    name = f"{stem}-{step:09d}"
    more = [f"{name}-{part:04d}.safetensors" for part in range(1, -(-rows // BLOCK))]
    return [f"{name}.safetensors", *more]


def _is_too_much(segments: list[Segment], more: int, size: int) -> bool:
    """Return whether the log would have more than twice the shard's rows, or too many segments."""
    total = more + sum(segment.rows for segment in segments)
    return total > 2 * size or len(segments) >= MOST_SEGMENTS


def _clean(
    last_step: Tensor, older: list[Segment], changed: int
) -> tuple[list[Segment], list[list[int]], Tensor]:
    """Drop the segments without present values, then carry the oldest ones until the log is small.

    Returns:
        The segments to keep, the intervals of the carried ones, and the rows to carry.
    """
    homes = Homes(older)
    alive = homes.count(last_step)
    living = [i for i, count in enumerate(alive) if count]
    total = changed + sum(older[i].rows for i in living)
    most = MOST_SEGMENTS // 2 if len(older) >= MOST_SEGMENTS else MOST_SEGMENTS
    carried: list[int] = []
    while living and (total > 2 * len(last_step) or len(living) >= most):
        oldest = living.pop(0)
        carried.append(oldest)
        total += alive[oldest] - older[oldest].rows
    intervals = [interval for i in carried for interval in older[i].steps]
    return [older[i] for i in living], intervals, homes.rows(last_step, carried)


def _joined(intervals: list[list[int]]) -> list[list[int]]:
    """Sort intervals and join those that touch."""
    joined: list[list[int]] = []
    for low, high in sorted(intervals):
        if joined and joined[-1][1] == low:
            joined[-1] = [joined[-1][0], high]
        else:
            joined.append([low, high])
    return joined


class Homes:
    """Finds the segment that holds the present values of each row.

    Args:
        segments: The segments of a shard. Their intervals do not overlap.
    """

    def __init__(self, segments: Sequence[Segment]):
        self.none = len(segments)
        intervals = sorted((*steps, i) for i, s in enumerate(segments) for steps in s.steps)
        # A row with ends[j - 1] < last_step <= ends[j] is in owners[j]. No row is in a gap.
        ends = [*(low for low, _, _ in intervals[:1]), *(high for _, high, _ in intervals)]
        self.ends = torch.tensor(ends, dtype=torch.int64)
        self.owners = torch.tensor([self.none, *(i for _, _, i in intervals), self.none])

    def count(self, last_step: Tensor) -> list[int]:
        """Return how many rows each segment holds."""
        counts = torch.zeros(self.none + 1, dtype=torch.int64)
        for part in last_step.split(BLOCK):
            counts += torch.bincount(self._of(part), minlength=self.none + 1).cpu()
        return counts[: self.none].tolist()

    def rows(self, last_step: Tensor, segments: Sequence[int]) -> Tensor:
        """Return the rows that some of the segments hold, int64 on the device of `last_step`."""
        wanted = torch.zeros(self.none + 1, dtype=torch.bool, device=last_step.device)
        wanted[list(segments)] = True
        found = [
            wanted[self._of(part)].nonzero()[:, 0] + number * BLOCK
            for number, part in enumerate(last_step.split(BLOCK))
        ]
        return torch.cat(found)

    def _of(self, last_step: Tensor) -> Tensor:
        device = last_step.device
        return self.owners.to(device)[torch.bucketize(last_step, self.ends.to(device))]
