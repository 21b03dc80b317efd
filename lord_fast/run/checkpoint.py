"""Finds and reads checkpoints. They are verified by hash when they are read.

A checkpoint is a folder RUN/checkpoints/STAGE-STEP. It holds one safetensors file per namespace and
the latent tables as segments (`run/segments.py`). Its state.json (`run/contents.py`) holds the
stage, the step, the sha256 of each file and a checksum of its own content. `run/snapshot.py` writes
checkpoints.
"""

import re
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file

from lord_fast.console import err
from lord_fast.run.contents import TableFiles, read_contents, verify
from lord_fast.run.saved import SavedTable, table_files
from lord_fast.run.tensors import NotFiniteError, State, check_finite

__all__ = ["Loaded", "Say", "State"]
NAME = re.compile(r"(?P<stage>latent|encoders)-(?P<step>\d{9})")
LEFTOVER = re.compile(rf"\.{NAME.pattern}(\.old|\.link)?\.partial")

SHARED_OUT = "content"
"""Name of the table whose shards the processes share out. All else is the same in all of them."""
Say = Callable[[str], object]
"""Prints one line for the user."""


class Loaded(NamedTuple):
    """A checkpoint that was read.

    Attributes:
        path: The checkpoint's folder.
        step: Number of completed steps.
        state: The tensors that are saved whole, on the CPU.
        tables: The latent tables. They are read from the disk when they are needed.
    """

    path: Path
    step: int
    state: State
    tables: dict[str, SavedTable]


def load(checkpoint: Path, shards: Collection[int] | None = None) -> Loaded:
    """Load a checkpoint and verify it.

    Args:
        checkpoint: The checkpoint's folder.
        shards: Virtual ranks whose content codes are read. Files of the others are not read. None
            reads all.

    Raises:
        ValueError: A file is missing or damaged, the folder's name does not match its content, or
            a value is not finite.
    """
    contents = read_contents(checkpoint)
    files = table_files(checkpoint, contents)
    of_tables = _names(files)
    if shards is not None and SHARED_OUT in files:
        files[SHARED_OUT] = _only(checkpoint, files[SHARED_OUT], shards)
    verify(checkpoint, of_tables - _names(files))
    state = {}
    for name in sorted(set(contents.sha256) - of_tables):
        try:
            state[Path(name).stem] = load_file(checkpoint / name)
            check_finite(Path(name).stem, state[Path(name).stem])
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{checkpoint}: not a complete checkpoint ({error})") from error
        except NotFiniteError as error:
            raise ValueError(
                f"{checkpoint}: holds values that are not finite ({error.what})"
            ) from error
    tables = {name: SavedTable(checkpoint, name, t, contents.step) for name, t in files.items()}
    return Loaded(checkpoint, contents.step, state, tables)


def load_latest(
    folder: Path, stage: str, say: Say = err.print, shards: Collection[int] | None = None
) -> Loaded | None:
    """Load the latest undamaged checkpoint of a stage.

    Training may remove a checkpoint while this function reads it. The function then loads a newer
    one without a warning.

    Args:
        folder: RUN/checkpoints.
        stage: latent or encoders.
        say: Prints which checkpoint is damaged and which one is used instead.
        shards: See `load`.

    Returns:
        The checkpoint, or None if the stage has none.

    Raises:
        ValueError: All checkpoints are damaged.
    """
    failed: dict[Path, ValueError] = {}
    while untried := [p for p in list_checkpoints(folder, stage) if p not in failed]:
        path = untried[-1]
        try:
            found = load(path, shards)
        except ValueError as error:
            failed[path] = error
            continue
        for damaged, reason in failed.items():
            if damaged.exists():
                say(f"{reason}; {path} is undamaged and is used instead")
        return found
    if not failed:
        return None
    first = next(iter(failed.values()))
    raise ValueError(f"{first}; no other checkpoint of the {stage} stage is undamaged")


def find(folder: Path, stage: str, step: int) -> Path:
    """Return the path of the checkpoint of a step.

    Raises:
        ValueError: There is no such checkpoint.
    """
    path = folder / f"{stage}-{step:09d}"
    if not path.is_dir():
        steps = [str(_step_of(found)) for found in list_checkpoints(folder, stage)]
        raise ValueError(
            f"{folder}: no checkpoint of the {stage} stage at step {step}; "
            f"there are: {', '.join(steps) or 'none'}"
        )
    return path


def list_checkpoints(folder: Path, stage: str) -> list[Path]:
    """List the checkpoints of a stage, oldest first.

    Raises:
        ValueError: The folder holds checkpoints of lord-fast 0.1, which used another name for
            stage 2.
    """
    if not folder.is_dir():
        return []
    old = sorted(folder.glob("amortized-*"))
    if old:
        raise ValueError(
            f"{old[-1]}: written by lord-fast 0.1; rename the amortized-* folders in {folder} to "
            f"encoders-*, which is the new name of stage 2"
        )
    found = [path for path in folder.iterdir() if NAME.fullmatch(path.name)]
    return sorted(path for path in found if path.name.startswith(f"{stage}-"))


def latest(folder: Path, stage: str) -> Path | None:
    """Return the latest checkpoint of a stage, or None."""
    found = list_checkpoints(folder, stage)
    return found[-1] if found else None


def steps_done(folder: Path, stage: str) -> int:
    """Return the number of steps of a stage's latest checkpoint, or 0 if it has none."""
    found = latest(folder, stage)
    return _step_of(found) if found else 0


def is_finished(folder: Path, stage: str, end: int) -> bool:
    """Return whether the latest checkpoint of a stage is of its last step and undamaged."""
    found = latest(folder, stage)
    if found is None or _step_of(found) != end:
        return False
    try:
        verify(found)
    except ValueError:
        return False
    return True


def remove_leftovers(folder: Path) -> None:
    """Remove files from RUN/checkpoints that a killed process left there while it was saving."""
    for path in folder.glob(".*.partial"):
        if LEFTOVER.fullmatch(path.name):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _names(tables: Mapping[str, TableFiles]) -> set[str]:
    """Return the names of all files of some tables."""
    segments = [s for table in tables.values() for shard in table.segments for s in shard]
    return {file for segment in segments for file in segment.files}


def _only(checkpoint: Path, table: TableFiles, shards: Collection[int]) -> TableFiles:
    """Leave the files of other shards out.

    Raises:
        ValueError: There is no such shard.
    """
    if max(shards) >= len(table.rows):
        raise ValueError(
            f"{checkpoint}: damaged (it has {len(table.rows)} virtual ranks and its run has more)"
        )
    kept = [part if number in shards else [] for number, part in enumerate(table.segments)]
    return table._replace(segments=kept)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name[-9:])


def aside(checkpoint: Path) -> Path:
    """Return the name that a checkpoint has while it is removed."""
    return checkpoint.with_name(f".{checkpoint.name}.old.partial")
