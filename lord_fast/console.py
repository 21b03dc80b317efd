"""The consoles of lord-fast. Results go to stdout and everything else goes to stderr.

Markup and emoji codes are off, so that names with brackets or colons are printed unchanged.
"""

from rich.console import Console


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let `lord_fast.cli.main` handle a closed pipe. By default rich would exit here."""
        raise


out = _Console(markup=False, emoji=False, highlight=False)
"""Results."""
err = _Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False)
"""Progress, notes and errors."""
