"""Reads the latent tables of a checkpoint block by block, so that memory never holds one twice."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lord_fast.run.contents import Contents, TableFiles
from lord_fast.run.segments import BLOCK, PARTS, Segment
from lord_fast.run.tensors import NotFiniteError, check_finite

DTYPES = [torch.int64, *[torch.float32] * 3, torch.int64]
"""Types of the tensors of a segment, from rows to last_step."""


class Target(Protocol):
    """What a shard of a saved table is read into. `segments.Shard` is one."""

    def write_rows(self, rows: Tensor, values: Mapping[str, Tensor]) -> None:
        """Set rows, see `segments.Shard.write_rows`."""
        ...


class SavedTable:
    """A latent table of a checkpoint, on disk.

    All files are open from the start, so that the table can still be read after the checkpoint has
    been removed.

    Args:
        folder: The checkpoint.
        name: The table's name.
        files: The table's files.
        step: The checkpoint's number of completed steps.

    Attributes:
        rows: Number of rows of each shard.
        dim: Length of a code.

    Raises:
        ValueError: A file is missing, is not a segment of such a table, or holds a value that is
            not finite.
    """

    def __init__(self, folder: Path, name: str, files: TableFiles, step: int):
        self.folder, self.name, self.step = folder, name, step
        self.rows, self.dim = files.rows, files.dim
        try:
            self._shards = [[_open(folder, s) for s in shard] for shard in files.segments]
            for number, rows in enumerate(self.rows):
                self._check(number, rows)
        except (OSError, SafetensorError, LookupError, TypeError, RuntimeError) as error:
            raise ValueError(f"{folder}: not a complete checkpoint ({error})") from error

    def load_into(self, shards: Mapping[int, Target]) -> None:
        """Write the rows of some shards.

        Args:
            shards: Number of a shard -> a table with the initial values of all rows. Rows that were
                never updated are not written.
        """
        for number, shard in shards.items():
            for rows, values in self.blocks(number):
                shard.write_rows(rows, values)

    def blocks(self, shard: int) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Yield rows and their values, see `segments.Shard.read_rows`, older values first."""
        for file in (file for segment in self._shards[shard] for file in segment):
            slices = {part: file.get_slice(part) for part in PARTS}
            if "rows" in file.keys():  # noqa: SIM118
                slices["rows"] = file.get_slice("rows")
            count = slices["last_step"].get_shape()[0]
            if any(part.get_shape()[0] != count for part in slices.values()):
                raise LookupError(f"tensors of a file of the {self.name} table differ in length")
            for start in range(0, count, BLOCK):
                stop = min(start + BLOCK, count)
                values = {name: part[start:stop] for name, part in slices.items()}
                # Earlier versions saved all rows in order, without their numbers.
                rows = values.pop("rows", None)
                yield torch.arange(start, stop) if rows is None else rows, values

    def _check(self, shard: int, size: int) -> None:
        for rows, values in self.blocks(shard):
            shapes = [(len(rows),), *[(len(rows), self.dim)] * 3, (len(rows),)]
            tensors = [rows, *(values[part] for part in PARTS)]
            fits = [tuple(tensor.shape) for tensor in tensors] == shapes
            fits = fits and [tensor.dtype for tensor in tensors] == DTYPES
            if len(rows):
                fits = fits and 0 <= int(rows.min()) <= int(rows.max()) < size
                fits = fits and int(values["last_step"].min()) >= 0
                fits = fits and int(values["last_step"].max()) <= self.step
            if not fits:
                raise ValueError(
                    f"{self.folder}: damaged (its files of the {self.name} table differ from its "
                    f"state.json)"
                )
            try:
                check_finite(self.name, values)
            except NotFiniteError as error:
                raise ValueError(
                    f"{self.folder}: holds values that are not finite ({error.what})"
                ) from error


def table_files(folder: Path, contents: Contents) -> dict[str, TableFiles]:
    """Return the files of each table, also of a checkpoint of an earlier version.

    Earlier versions saved a table as one file with all rows. It is read, and linked by later saves,
    like a segment.

    Raises:
        ValueError: A file is missing or is not a safetensors file.
    """
    if contents.tables or contents.stage != "latent":
        return contents.tables
    found = {}
    for file in sorted(contents.sha256):
        try:
            with safe_open(folder / file, "pt") as content:
                if "last_step" not in content.keys():  # noqa: SIM118
                    continue
                size, dim = content.get_slice("weight").get_shape()
        except (OSError, SafetensorError, ValueError) as error:
            raise ValueError(f"{folder}: not a complete checkpoint ({error})") from error
        segment = Segment([file], size, [[-1, contents.step]])
        found[Path(file).stem] = TableFiles([size], dim, [[segment]])
    return found


def _open(folder: Path, segment: Segment) -> list[safe_open]:
    return [safe_open(folder / file, "pt") for file in segment.files]
