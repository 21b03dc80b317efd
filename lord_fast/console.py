"""The consoles of lord-fast. Results go to stdout and everything else goes to stderr.

Markup and emoji codes are off, so that names with brackets or colons are printed unchanged.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from lord_fast.progress import Progress


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let `lord_fast.cli.main` handle a closed pipe. By default rich would exit here."""
        raise


out = _Console(markup=False, emoji=False, highlight=False)
"""Results."""
err = _Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False)
"""Progress, notes and errors."""


@contextmanager
def progress_bar(what: str) -> Iterator[Progress]:
    """Show a progress bar on `err` if it is a terminal.

    Args:
        what: Label of the bar.

    Yields:
        A function of the number of finished parts and the number of all parts.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    hidden = not err.is_terminal
    with Progress(
        *columns, TimeRemainingColumn(), console=err, disable=hidden, transient=True
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
