"""Takes snapshots of a training and writes them as checkpoints.

A checkpoint is written under another name, synced, and renamed. Even after a crash, every folder
with a checkpoint's name is therefore complete. Equal states that were saved at the same steps give
equal bytes.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lord_fast.atomic import sync
from lord_fast.console import err
from lord_fast.distributed.group import Group
from lord_fast.run.checkpoint import Say, aside, list_checkpoints
from lord_fast.run.contents import FILE, Contents, TableFiles, read_contents, write_contents
from lord_fast.run.parts import joined, report
from lord_fast.run.saved import table_files
from lord_fast.run.segments import BLOCK, Plan, Tables, plan, read_blocks, stem_of
from lord_fast.run.tensors import NotFiniteError, State, check_finite, write_tensors

KEPT = 2
NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL}
"""Errors of a file system without hard links."""

Files = Iterable[tuple[str, dict[str, Tensor]]]
"""Names of safetensors files and their tensors."""


class Snapshot(NamedTuple):
    """A state of a training that can be written.

    Attributes:
        stage: latent or encoders.
        step: Number of completed steps.
        files: The files to write. Each can be read only once if the snapshot is not in memory.
        links: Name of each file to link from `previous` -> its sha256.
        previous: The previous checkpoint, or None.
        tables: Name of each latent table -> its files, written or linked.
        in_memory: Whether the files are copies in host memory. Training may then go on before they
            are written. Larger snapshots read the tables block by block while they are written.
    """

    stage: str
    step: int
    files: Files
    links: dict[str, str]
    previous: Path | None
    tables: dict[str, TableFiles]
    in_memory: bool

    @property
    def name(self) -> str:
        """Name of the checkpoint's folder."""
        return f"{self.stage}-{self.step:09d}"


def save(
    folder: Path, stage: str, step: int, state: State, tables: Tables | None = None,
    previous: Path | None = None, keep: int = KEPT, say: Say = err.print,
) -> Path:  # fmt: skip
    """Write a checkpoint at once, see `take` and `write`."""
    return write(folder, take(stage, step, state, tables or {}, previous), keep, say)


def take(
    stage: str, step: int, state: State, tables: Tables, previous: Path | None = None
) -> Snapshot:
    """Copy a state to host memory, and of the tables the rows updated since the previous save.

    Args:
        stage: latent or encoders.
        step: Number of completed steps.
        state: The tensors that are saved whole, on any device.
        tables: The latent tables.
        previous: The previous checkpoint of this training, whose table files can be linked (see
            `can_link`). None saves all rows that differ from the initial tables.

    Raises:
        ValueError: The previous checkpoint is gone or damaged.
        NotFiniteError: A value is not finite. Of the tables only rows that are written are
            checked. A snapshot that is not in memory raises this when it is written.
    """
    before = None if previous is None else read_contents(previous)
    plans = _plan(step, tables, previous, before)
    files = _files(state, tables, plans)
    in_memory = sum(p.new.rows for p in _each(plans) if p.new) <= BLOCK
    linked = [file for p in _each(plans) for segment in p.kept for file in segment.files]
    return Snapshot(
        stage, step, list(files) if in_memory else files,
        {file: before.sha256[file] for file in linked} if before else {}, previous,
        {
            name: TableFiles(
                [shard.num_rows for shard in shards.values()], next(iter(shards.values())).dim,
                [plans[name][number].segments for number in shards],
            )
            for name, shards in tables.items()
        },
        in_memory,
    )  # fmt: skip


def check(state: State, tables: Tables, since: int) -> None:
    """Check that a state is finite. Of the tables only rows updated after `since` are checked.

    Raises:
        NotFiniteError: A value is not finite.
    """
    for namespace, tensors in state.items():
        check_finite(namespace, tensors)
    for name, shards in tables.items():
        for shard in shards.values():
            for rows in (shard.last_step > since).nonzero()[:, 0].split(BLOCK):
                check_finite(name, shard.read_rows(rows))


def write(
    folder: Path,
    snapshot: Snapshot,
    keep: int = KEPT,
    say: Say = err.print,
    group: Group | None = None,
) -> Path:
    """Write a checkpoint, then remove older ones of the stage.

    Checkpoints of later steps are removed too, because they belong to steps that training has
    abandoned. Each process syncs and hashes its own files before the first one writes state.json
    and renames the folder.

    Args:
        folder: RUN/checkpoints. It is created if it does not exist.
        snapshot: What this process writes, see `parts.own_part`.
        keep: Number of checkpoints to keep.
        say: Prints a warning if an old checkpoint cannot be removed.
        group: The processes. Defaults to this process alone.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: The disk is full or not writable. The temporary folder is removed.
        NotFiniteError: See `take`.
        Ended: Another process failed.
    """
    group, found = group or Group(), dict[str, Any]()
    final = folder / snapshot.name
    partial = folder / f".{final.name}.partial"
    try:
        group.alone(lambda: _begin(partial))
        group.together(lambda: found.update(_write_part(partial, snapshot)))
        reports = [json.loads(text) for text in group.gather_texts(json.dumps(found))]
        contents = joined(snapshot.stage, snapshot.step, reports)
        group.alone(lambda: publish(partial, contents))
    except BaseException:
        if group.first:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    if group.first:
        prune(final, snapshot.stage, keep, say)
    return final


def _begin(partial: Path) -> None:
    """Create the temporary folder, empty."""
    folder = partial.parent
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync(folder.parent)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()


def _write_part(partial: Path, snapshot: Snapshot) -> dict[str, Any]:
    """Write and link the files of this process. Return the report for the first process."""
    try:
        hashes = write_files(partial, snapshot.files)
    except NotFiniteError as error:
        return {"not_finite": error.what}
    for file in snapshot.links:
        assert snapshot.previous is not None
        os.link(snapshot.previous / file, partial / file)
    return report(hashes | snapshot.links, snapshot.tables)


def write_files(partial: Path, files: Files) -> dict[str, str]:
    """Write and sync safetensors files. Return the sha256 of each.

    Raises:
        OSError: The disk is full or not writable. The error names the file.
    """
    hashes = {}
    for name, tensors in files:
        hashes[name] = write_tensors(partial / name, tensors)
        del tensors  # before the next block is read
    return hashes


def publish(partial: Path, contents: Contents) -> None:
    """Write state.json, sync the temporary folder and give it the checkpoint's name."""
    write_contents(partial, contents)
    sync(partial)
    final = partial.with_name(f"{contents.stage}-{contents.step:09d}")
    if final.exists():
        final.rename(aside(final))
    partial.rename(final)
    sync(final.parent)
    shutil.rmtree(aside(final), ignore_errors=True)


def prune(final: Path, stage: str, keep: int, say: Say) -> None:
    """Remove the checkpoints of a stage except `final` and the `keep` - 1 before it."""
    found = list_checkpoints(final.parent, stage)
    now = found.index(final) + 1
    for old in found[: max(now - keep, 0)] + found[now:]:
        _remove(old, say)


def can_link(previous: Path, step: int, say: Say) -> bool:
    """Return whether a later checkpoint can link the table files of `previous`.

    Args:
        previous: A checkpoint.
        step: Number of completed steps of the later checkpoint.
        say: Prints why the tables will be saved in full instead.

    Raises:
        OSError: The disk fails for another reason than that it has no hard links.
    """
    try:
        contents = read_contents(previous)
        tables = table_files(previous, contents)
        names = [f for t in tables.values() for shard in t.segments for s in shard for f in s.files]
        missing = [name for name in names if not (previous / name).is_file()]
    except ValueError as error:
        say(f"{error}; the latent tables are saved in full")
        return False
    if missing:
        say(f"{previous / missing[0]}: missing; the latent tables are saved in full")
        return False
    probe = previous.with_name(f".{previous.name}.link.partial")
    try:
        probe.unlink(missing_ok=True)
        os.link(previous / FILE, probe)
        probe.unlink()
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        say(
            f"{previous.parent}: this file system has no hard links ({error.strerror}), so every "
            f"checkpoint holds the latent tables in full"
        )
        return False
    return contents.step < step


def _plan(
    step: int, tables: Tables, previous: Path | None, before: Contents | None
) -> dict[str, dict[int, Plan]]:
    old = {} if before is None or previous is None else table_files(previous, before)
    since = before.step if before else 0
    return {
        name: {
            number: plan(
                shard, stem_of(name, number), step,
                old[name].segments[number] if before else (), since,
            )
            for number, shard in shards.items()
        }
        for name, shards in tables.items()
    }  # fmt: skip


def _each(plans: dict[str, dict[int, Plan]]) -> Iterator[Plan]:
    return (planned for shards in plans.values() for planned in shards.values())


def _files(
    state: State, tables: Tables, plans: dict[str, dict[int, Plan]]
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield copies in host memory after checking that they are finite."""
    for namespace, tensors in sorted(state.items()):
        copies = {name: _copied(tensor) for name, tensor in tensors.items()}
        check_finite(namespace, copies)
        yield f"{namespace}.safetensors", copies
    for name, shards in sorted(tables.items()):
        for number, shard in shards.items():
            for file, values in read_blocks(shard, plans[name][number]):
                check_finite(name, values)
                yield file, values
                del values


def _copied(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())


def _remove(checkpoint: Path, say: Say) -> None:
    """Remove a checkpoint. It is renamed first, so that a crash leaves no incomplete checkpoint."""
    old = aside(checkpoint)
    try:
        checkpoint.rename(old)
        shutil.rmtree(old)
    except OSError as error:
        say(f"{checkpoint}: an old checkpoint cannot be removed ({error}); training continues")
