"""Chooses where the rows of the content table lie during stage 1."""

import functools
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir

import torch

from lord_fast.config import TrainConfig
from lord_fast.memory import free_memory
from lord_fast.model.latent import LatentTable
from lord_fast.model.row_storage import PARTS, FileRows, HostRows, RowStorage
from lord_fast.model.streamed_table import StreamedTable, Threads

SHARE_OF_MEMORY = 0.5
"""Fraction of the free memory that the table may take with --table-device auto."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class TablePlace:
    """The location of a content table.

    Attributes:
        where: device (the memory of the training device), pinned or disk.
        num_bytes: Size of the rows.
        folder: Folder of the scratch file.
        why: Why it was chosen.
    """

    where: str
    num_bytes: int
    folder: Path
    why: str

    @property
    def table(self) -> Callable[..., LatentTable]:
        """The tables' class. It takes the arguments of `LatentTable`."""
        if self.where == "device":
            return LatentTable
        return functools.partial(_streamed, self, threads=Threads())

    def describe(self) -> str:
        """Describe the location for a run's header. A table on the device needs no line."""
        size = f"{self.num_bytes / 1e9:.2f} GB"
        if self.where == "disk":
            return f"content codes in a scratch file of {size} in {self.folder} ({self.why})"
        if self.where == "pinned":
            return f"content codes in {size} of host memory ({self.why})"
        return ""


def _streamed(place: TablePlace, num_rows: int, dim: int, *args, **options) -> StreamedTable:
    def storage() -> RowStorage:
        return FileRows(place.folder, dim) if place.where == "disk" else HostRows(num_rows, dim)

    return StreamedTable(storage, num_rows, dim, *args, **options)


def choose_place(
    config: TrainConfig,
    num_images: int,
    device: torch.device,
    run: Path | None,
    processes: int = 1,
) -> TablePlace:
    """Choose the location of the content table, see `lord_fast.config.MachineConfig.table_device`.

    Args:
        config: The run's configuration.
        num_images: Number of images of this process.
        device: Device of the training steps.
        run: The run's folder.
        processes: Number of processes on this machine, which share its memory and its disk.

    Raises:
        ValueError: The table does not fit in the requested or in any location, or this machine
            lacks it.
    """
    wanted = config.machine.table_device
    needed = num_images * config.model.content_dim * PARTS * 4
    folder = config.machine.table_folder or run or Path(gettempdir())
    where: str = wanted
    why = f"--table-device {wanted}"
    if wanted == "auto":
        where, why = _best_place(needed, device, processes)
    elif wanted in ("cuda", "pinned"):
        if device.type != "cuda":
            raise ValueError(f"--table-device {wanted}: needs --device cuda")
        if wanted == "cuda":
            _check_memory(wanted, needed, device)
        else:
            _check_memory(wanted, needed * processes, CPU)
        where = "device" if wanted == "cuda" else wanted
    if where == "disk":
        _check_disk(needed * processes, device, folder)
    return TablePlace(where, needed, folder, why)


def _best_place(needed: int, device: torch.device, processes: int) -> tuple[str, str]:
    """Return the location for --table-device auto, and why it is not the device's memory."""
    free, together = free_memory(device), needed * processes
    here = together if device.type == "cpu" else needed
    if device.type == "mps" or here <= SHARE_OF_MEMORY * free:
        return "device", ""
    why = f"more than half of the {free / 1e9:.2f} GB that are free on the {device.type} device"
    if device.type == "cuda" and together <= SHARE_OF_MEMORY * free_memory(CPU):
        return "pinned", why
    return "disk", why


def _check_memory(wanted: str, needed: int, device: torch.device) -> None:
    free = free_memory(device)
    if needed > free:
        raise ValueError(
            f"--table-device {wanted}: the content table takes {needed / 1e9:.2f} GB and "
            f"{free / 1e9:.2f} GB are free; use --table-device auto"
        )


def _check_disk(needed: int, device: torch.device, folder: Path) -> None:
    if device.type == "mps" or not hasattr(os, "preadv"):
        raise ValueError("--table-device disk: runs on Linux and macOS, with --device cpu or cuda")
    existing = next(
        path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()
    )
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise ValueError(
            f"--table-device disk: the scratch file takes {needed / 1e9:.2f} GB and "
            f"{free / 1e9:.2f} GB are free in {folder}; give a folder on a larger disk with "
            f"--table-folder"
        )
