"""Where lord-fast prints: tables and results to stdout, everything else to stderr.

Markup and emoji codes are off, so that a name with brackets or colons in it is printed as it is.
"""

from rich.console import Console


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave a closed pipe to `lord_fast.cli.main`; rich itself would exit here."""
        raise


out = _Console(markup=False, emoji=False, highlight=False)
"""Results."""
err = _Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False)
"""Progress, notes and errors."""
