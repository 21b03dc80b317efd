"""lord-fast score."""

import json as json_
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from lord_fast.atomic import atomic_write, refuse_overwriting
from lord_fast.bounds import AtLeast
from lord_fast.console import out
from lord_fast.run.metrics import probe_rows


def score(
    codes: Positional[Path],
    labels: Positional[Path],
    json: Path | None = None,
    circular: tuple[str, ...] = (),
    seed: Annotated[int, AtLeast(0)] = 0,
    overwrite: bool = False,
) -> None:
    """Measure the codes of any model.

    At most 5,000 codes, drawn at random, are probed.

    Examples:
        lord-fast score codes.npz labels.csv
        lord-fast score codes.npz labels.csv --json scores.json

    Args:
        codes: An npz file with the content codes content [N, D]. The class codes class_ [N, E] and
            the names names [N] are optional.
        labels: A CSV file with a column class and a column for each content factor. It needs a
            column name if its rows are in another order than the codes.
        json: Also write all values to this JSON file.
        circular: Numeric content factors that lie on a circle, each with its period, such as
            angle=360.
        seed: Seed of the splits, the probes and the controls.
        overwrite: Replace an existing JSON file.
    """
    from rich.table import Table

    from lord_fast.evaluate.regression import periods
    from lord_fast.evaluate.score import score as measure

    if json is not None:
        refuse_overwriting(json, overwrite)
    values = measure(codes, labels, seed, periods(circular))
    table = Table("what", "figure", "chance and controls", title=str(codes))
    for row in probe_rows(values):
        table.add_row(*row)
    out.print(table)
    if json is not None:
        atomic_write(json, json_.dumps(values, indent=1) + "\n")
