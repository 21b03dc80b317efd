"""Where lord-fast prints: tables and results to stdout, everything else to stderr.

Markup is off, so that a name with brackets in it is printed as it is.
"""

from rich.console import Console

out = Console(markup=False, highlight=False)
"""Results."""
err = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
"""Progress, notes and errors."""
