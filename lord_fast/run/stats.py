"""A run's stats.jsonl: one JSON object for each logged step, both stages in one file."""

import json
from pathlib import Path

from lord_fast.atomic import atomic_write, naming


def append_stats(file: Path, row: dict) -> None:
    """Add a line."""
    with naming(file), file.open("a") as stream:
        stream.write(json.dumps(row) + "\n")


def read_stats(file: Path, torn: bool = False) -> list[dict]:
    """The lines of a run's stats.jsonl.

    Args:
        file: Where it is.
        torn: Leave out a last line that is not whole, as a full disk ends the file.

    Raises:
        ValueError: names a line that is not one of statistics.
    """
    lines, rows = file.read_text(errors="replace").splitlines(), []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            missing = {"stage", "step", "reconstruction", "lr"} - set(row)
        except (json.JSONDecodeError, TypeError):
            missing = {"all of it"}
        if not missing:
            rows.append(row)
        elif not (torn and number == len(lines)):
            raise ValueError(
                f"{file}: line {number} is damaged, as by a full disk; remove that line"
            )
    return rows


def forget_after(file: Path, stage: str, step: int) -> None:
    """Drop a stage's lines of steps that will be done again, and a last one that is not whole."""
    if not file.exists():
        return
    rows = read_stats(file, torn=True)
    kept = [row for row in rows if row["stage"] != stage or row["step"] <= step]
    atomic_write(file, "".join(json.dumps(row) + "\n" for row in kept))
