"""lord-fast evaluate."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from lord_fast.console import err, out, progress_bar
from lord_fast.errors import naming
from lord_fast.evaluate.options import EvaluateConfig
from lord_fast.run.history import Command


def evaluate(
    command: Command,
    run: Positional[Path],
    config: Annotated[EvaluateConfig, arg(name="")],
) -> None:
    """Measure reconstruction, leakage, transfer and samples.

    Examples:
        lord-fast evaluate runs/photos
        lord-fast evaluate runs/photos --codes encoder --store heldout

    Args:
        run: The run's folder. The results are written to a file metrics*.json in it.
    """
    from rich.table import Table

    from lord_fast.apply.process import set_up_for_run
    from lord_fast.evaluate.run import evaluate_run

    set_up_for_run(run)
    with naming(run):
        with progress_bar("evaluate") as progress:
            metrics = evaluate_run(run, config, progress)
        command.record(run)
    table = Table("what", "figure", "chance or baseline", title=metrics.title)
    for row in metrics.rows:
        table.add_row(*row)
    out.print(table)
    err.print(f"wrote all values to {metrics.file}")
