"""lord-fast evaluate."""

from pathlib import Path

from rich.table import Table

from lord_fast.console import err, out
from lord_fast.evaluate.options import EvaluateConfig
from lord_fast.evaluate.run import evaluate_run


def run(run_path: Path, config: EvaluateConfig) -> dict:
    """Measure a run, print a table and write its metrics*.json."""
    metrics = evaluate_run(run_path, config)
    table = Table("what", "figure", "chance or baseline", title=metrics.title)
    for row in metrics.rows:
        table.add_row(*row)
    out.print(table)
    err.print(f"all figures: {metrics.file}")
    return metrics.values
