"""lord-fast score."""

import json as json_
from pathlib import Path

from tyro.conf import Positional

from lord_fast.atomic import atomic_write
from lord_fast.console import out
from lord_fast.run.metrics import probe_rows


def score(
    codes: Positional[Path], labels: Positional[Path], json: Path | None = None, seed: int = 0
) -> None:
    """Measure the codes of any model: leakage and what they hold.

    Examples:
        lord-fast score codes.npz labels.csv
        lord-fast score codes.npz labels.csv --json scores.json

    Args:
        codes: An npz file with content [N, D] and, if there are any, class_ [N, E] and names [N].
        labels: A CSV file with a column class, a column for each content factor, and a column name
            if its rows are in another order than the codes.
        json: Write all figures to this file as well.
        seed: Of the splits, the probes and the controls.
    """
    from rich.table import Table

    from lord_fast.evaluate.score import score as measure

    values = measure(codes, labels, seed)
    table = Table("what", "figure", "chance and controls", title=str(codes))
    for row in probe_rows(values):
        table.add_row(*row)
    out.print(table)
    if json is not None:
        atomic_write(json, json_.dumps(values, indent=1) + "\n")
