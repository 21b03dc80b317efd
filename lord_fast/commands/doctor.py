"""lord-fast doctor."""

from lord_fast.console import out


def doctor() -> None:
    """Show what this machine has and what is missing.

    Examples:
        lord-fast doctor
    """
    from rich.table import Table

    from lord_fast import __version__
    from lord_fast.doctor import findings

    table = Table("what", "found", title=f"lord-fast {__version__}")
    for row in findings():
        table.add_row(*row)
    out.print(table)
