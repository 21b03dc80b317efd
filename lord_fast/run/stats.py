"""Reads and writes a run's stats.jsonl, with one JSON object per logged step."""

import json
from pathlib import Path

from lord_fast.atomic import atomic_write
from lord_fast.errors import naming
from lord_fast.seal import seal, unseal


def append_stats(file: Path, row: dict) -> None:
    """Append a line with its checksum to stats.jsonl."""
    with naming(file), file.open("a") as stream:
        stream.write(_line(row))


def read_stats(file: Path, torn: bool = False) -> list[dict]:
    """Read a run's stats.jsonl.

    Args:
        file: Path of the file.
        torn: Whether to skip an incomplete last line, which a full disk may have left.

    Raises:
        ValueError: A line is damaged. The error names the line.
    """
    lines, rows = file.read_text(errors="replace").splitlines(), []
    for number, line in enumerate(lines, start=1):
        try:
            row = unseal(json.loads(line), file)
            missing = {"stage", "step", "reconstruction", "lr"} - set(row)
        except (ValueError, TypeError, AttributeError):
            missing = {"all of it"}
        if not missing:
            rows.append(row)
        elif not (torn and number == len(lines)):
            raise ValueError(
                f"{file}: line {number} is damaged, perhaps by a full disk; remove that line"
            )
    return rows


def forget_after(file: Path, stage: str, step: int) -> None:
    """Remove a stage's lines of steps after `step`, and an incomplete last line."""
    if not file.exists():
        return
    rows = read_stats(file, torn=True)
    kept = [row for row in rows if row["stage"] != stage or row["step"] <= step]
    atomic_write(file, "".join(_line(row) for row in kept))


def _line(row: dict) -> str:
    return json.dumps(seal(row)) + "\n"
