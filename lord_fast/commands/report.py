"""lord-fast report."""

from pathlib import Path

from tyro.conf import Positional

from lord_fast.console import err, progress_bar
from lord_fast.errors import naming
from lord_fast.run.history import Command


def report(command: Command, run: Positional[Path], store: Path | None = None) -> None:
    """Write RUN/report.html, a self-contained page about a run.

    Examples:
        lord-fast report runs/photos

    Args:
        run: The run's folder.
        store: New path of the run's store, if the store has moved.
    """
    from lord_fast.apply.process import set_up_for_run
    from lord_fast.report.page import write_report

    set_up_for_run(run)
    with naming(run), progress_bar("report") as progress:
        page = write_report(run, store, command, progress)
    err.print(f"wrote {page} ({page.stat().st_size / 1000:.0f} kB)")
