"""Reads and writes state.json, which lists what a checkpoint holds and the hash of every file."""

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from lord_fast.atomic import file_sha256
from lord_fast.errors import naming
from lord_fast.run.segments import Segment
from lord_fast.seal import seal, unseal

FILE = "state.json"
KEYS = {"stage", "step", "sha256"}
OLD_NAMES = {"amortized": "encoders"}
"""Names of stages in lord-fast 0.1. Users rename such folders by hand, but not their content."""


class TableFiles(NamedTuple):
    """The files of a latent table.

    Attributes:
        rows: Number of rows of each shard.
        dim: Length of a code.
        segments: Segments of each shard, oldest first.
    """

    rows: list[int]
    dim: int
    segments: list[list[Segment]]


class Contents(NamedTuple):
    """The content of state.json.

    Attributes:
        stage: latent or encoders.
        step: Number of completed steps.
        sha256: Name of each file -> its hash.
        tables: Name of each latent table -> its files. A checkpoint of an earlier lord-fast has
            none here. It holds each table as one file, like a namespace.
    """

    stage: str
    step: int
    sha256: dict[str, str]
    tables: dict[str, TableFiles]


def write_contents(folder: Path, contents: Contents) -> None:
    """Write and sync state.json.

    Raises:
        OSError: The disk is full or not writable. The error names the file.
    """
    tables = {name: plain_table(table) for name, table in sorted(contents.tables.items())}
    content: dict[str, Any] = {**contents._asdict(), "tables": tables}
    content["sha256"] = dict(sorted(contents.sha256.items()))
    file = folder / FILE
    with naming(file), file.open("w") as stream:
        stream.write(json.dumps(seal(content), indent=1) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def read_contents(folder: Path) -> Contents:
    """Read state.json and check it. The other files are not read.

    The checksum and the tables are optional, because earlier versions did not write them.

    Raises:
        ValueError: The file is missing or damaged, or does not belong to the folder.
    """
    file = folder / FILE
    try:
        content = unseal(json.loads(file.read_text()), file)
        if set(content) - {"tables"} != KEYS:
            raise ValueError(f"{file}: damaged (its keys have changed)")
        stage, step = OLD_NAMES.get(content["stage"], content["stage"]), content["step"]
        if type(step) is not int or f"{stage}-{step:09d}" != folder.name:
            raise ValueError(
                f"{folder}: damaged or renamed (its state.json is of {stage}, step {step})"
            )
        tables = {name: read_table(table) for name, table in content.get("tables", {}).items()}
        return Contents(stage, step, {str(k): str(v) for k, v in content["sha256"].items()}, tables)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder}: not a complete checkpoint ({error})") from error
    except (AttributeError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{folder}: not a complete checkpoint ({error!r})") from error


def verify(folder: Path, unread: Collection[str] = ()) -> Contents:
    """Check state.json and the hash of every file except for those in `unread`.

    Raises:
        ValueError: A file is missing or damaged.
    """
    contents = read_contents(folder)
    for name, digest in contents.sha256.items():
        if name in unread:
            continue
        try:
            if file_sha256(folder / name) != digest:
                raise ValueError(f"{folder / name}: damaged (its sha256 has changed)")
        except OSError as error:
            raise ValueError(f"{folder}: not a complete checkpoint ({error})") from error
    return contents


def plain_table(table: TableFiles) -> dict[str, Any]:
    """Return a table's entry of state.json."""
    segments = [[segment._asdict() for segment in shard] for shard in table.segments]
    return {"rows": table.rows, "dim": table.dim, "segments": segments}


def read_table(content: dict[str, Any]) -> TableFiles:
    """Read a table's entry. Wrong types raise any of the errors that `read_contents` catches."""
    segments = [
        [
            Segment(
                [str(name) for name in segment["files"]],
                _number(segment["rows"]),
                [[_number(low), _number(high)] for low, high in segment["steps"]],
            )
            for segment in shard
        ]
        for shard in content["segments"]
    ]
    rows = [_number(count) for count in content["rows"]]
    if len(rows) != len(segments):
        raise TypeError("a table has other numbers of rows and of segments")
    return TableFiles(rows, _number(content["dim"]), segments)


def _number(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value
