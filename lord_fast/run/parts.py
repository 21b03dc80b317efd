"""The parts of a checkpoint that several processes write, and how they become one."""

from typing import Any, NamedTuple

from lord_fast.distributed.group import Group
from lord_fast.run.checkpoint import SHARED_OUT
from lord_fast.run.contents import Contents, TableFiles, plain_table, read_table
from lord_fast.run.segments import Tables
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


def report(hashes: dict[str, str], tables: dict[str, TableFiles]) -> dict[str, Any]:
    """Return what a process tells the others of its files, as values that JSON supports."""
    return {
        "sha256": hashes, "tables": {name: plain_table(table) for name, table in tables.items()}
    }  # fmt: skip


def joined(stage: str, step: int, reports: list[dict[str, Any]]) -> Contents:
    """Join the reports of all processes, whose shards follow one another.

    Raises:
        NotFiniteError: A process has found a value that is not finite.
    """
    hashes: dict[str, str] = {}
    tables: dict[str, TableFiles] = {}
    for found in reports:
        if "not_finite" in found:
            raise NotFiniteError(found["not_finite"])
        hashes |= found["sha256"]
        for name, content in found["tables"].items():
            rows, dim, segments = read_table(content)
            before = tables.get(name, TableFiles([], dim, []))
            tables[name] = TableFiles([*before.rows, *rows], dim, [*before.segments, *segments])
    return Contents(stage, step, hashes, tables)
