"""Writes a checkpoint of all processes. Each writes its own shards of the tables."""

import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from lord_fast.atomic import sync
from lord_fast.distributed.group import Group
from lord_fast.run.checkpoint import SHARED_OUT, Say
from lord_fast.run.contents import Contents, TableFiles, plain_table, read_table
from lord_fast.run.segments import Tables
from lord_fast.run.snapshot import Snapshot, prune, publish, write_files
from lord_fast.run.tensors import NotFiniteError, State


class Part(NamedTuple):
    """What a process writes.

    Attributes:
        state: The tensors that are saved whole.
        tables: Shards of the latent tables.
    """

    state: State
    tables: Tables


def own_part(state: State, tables: Tables, group: Group) -> Part:
    """Return what this process writes. The first one writes all that is the same in all."""
    if group.first:
        return Part(state, tables)
    return Part({}, {name: shards for name, shards in tables.items() if name == SHARED_OUT})


def write_together(folder: Path, snapshot: Snapshot, keep: int, say: Say, group: Group) -> Path:
    """Write the snapshots of all processes as one checkpoint, then remove older ones.

    Even after a crash, every checkpoint in the folder is complete. Every process syncs its files
    and reports their hashes before the first one writes state.json and renames the folder.

    Args:
        folder: RUN/checkpoints. It is created if it does not exist.
        snapshot: What this process writes, see `own_part`.
        keep: Number of checkpoints to keep.
        say: Prints a warning if an old checkpoint cannot be removed.
        group: The processes.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: The disk is full or not writable. The temporary folder is removed.
        NotFiniteError: A value of any process is not finite.
        Ended: Another process failed.
    """
    final = folder / f"{snapshot.stage}-{snapshot.step:09d}"
    partial = folder / f".{final.name}.partial"
    report: dict[str, Any] = {}
    try:
        group.alone(lambda: _begin(folder, partial))
        group.together(lambda: report.update(_write_part(partial, snapshot)))
        reports = [json.loads(text) for text in group.gather_texts(json.dumps(report))]
        for found in reports:
            if "not_finite" in found:
                raise NotFiniteError(found["not_finite"])
        contents = _joined(snapshot, reports)
        group.alone(lambda: _end(partial, contents, final, keep, say))
    except BaseException:
        if group.first:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    return final


def _begin(folder: Path, partial: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync(folder.parent)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()


def _write_part(partial: Path, snapshot: Snapshot) -> dict[str, Any]:
    """Write the files of this process. Return their hashes and tables for the first process."""
    try:
        hashes = write_files(partial, snapshot.files)
    except NotFiniteError as found:
        return {"not_finite": found.what}
    for file in snapshot.links:
        assert snapshot.previous is not None
        os.link(snapshot.previous / file, partial / file)
    tables = {name: plain_table(table) for name, table in snapshot.tables.items()}
    return {"sha256": {**hashes, **snapshot.links}, "tables": tables}


def _joined(snapshot: Snapshot, reports: list[dict[str, Any]]) -> Contents:
    """Join the reports of all processes, whose shards follow one another."""
    hashes: dict[str, str] = {}
    tables: dict[str, TableFiles] = {}
    for report in reports:
        hashes |= report["sha256"]
        for name, content in report["tables"].items():
            rows, dim, segments = read_table(content)
            before = tables.get(name, TableFiles([], dim, []))
            tables[name] = TableFiles([*before.rows, *rows], dim, [*before.segments, *segments])
    return Contents(snapshot.stage, snapshot.step, hashes, tables)


def _end(partial: Path, contents: Contents, final: Path, keep: int, say: Say) -> None:
    publish(partial, contents)
    prune(final, contents.stage, keep, say)
