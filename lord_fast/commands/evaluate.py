"""lord-fast evaluate."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from lord_fast.console import err, out, progress_bar
from lord_fast.errors import naming
from lord_fast.evaluate.options import EvaluateConfig
from lord_fast.run.history import Command
from lord_fast.run.metrics import Metrics


def evaluate(
    command: Command,
    run: Positional[Path],
    config: Annotated[EvaluateConfig, arg(name="")],
    all: bool = False,
) -> None:
    """Measure reconstruction, leakage, transfer and samples.

    Examples:
        lord-fast evaluate runs/photos
        lord-fast evaluate runs/photos --codes encoder --store heldout --all

    Args:
        run: The run's folder. The results are written to a file metrics*.json in it, and sent to
            the loggers that the run was trained with.
        all: Also print all values with their intervals, chance levels and baselines.
    """
    from lord_fast.apply.process import set_up_for_run
    from lord_fast.evaluate.run import evaluate_run

    set_up_for_run(run)
    with naming(run):
        with progress_bar("evaluate") as progress:
            metrics = evaluate_run(run, config, progress)
        command.record(run)
    if all:
        _print(metrics.title, ("what", "figure", "chance or baseline"), metrics.rows)
    cards = [(f"{card.question}?", card.word, card.figure, card.chance) for card in metrics.cards]
    _print(metrics.title, ("question", "answer", "figure", "chance or baseline"), cards)
    more = "" if all else "; --all prints them"
    err.print(f"wrote all values to {metrics.file}{more}; docs/metrics.md explains them")
    _log(run, metrics)


def _log(run: Path, metrics: Metrics) -> None:
    """Send the figures to the run's loggers. A run may be evaluated where a package is missing."""
    from lord_fast.train.loggers import log_metrics

    try:
        log_metrics(run, metrics)
    except ValueError as error:
        err.print(f"warning: the metrics were not sent to the loggers ({error})")


def _print(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.table import Table

    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    out.print(table)
