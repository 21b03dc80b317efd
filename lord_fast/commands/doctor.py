"""lord-fast doctor."""

from pathlib import Path

from lord_fast.console import out


def doctor(self_test: bool = False, folder: Path = Path(".")) -> None:
    """Show what this machine has and what is missing.

    Examples:
        lord-fast doctor
        lord-fast doctor --self-test --folder /data/runs

    Args:
        self_test: Also try on this machine whether runs survive a kill, the lock works and the
            fast kernels are right. Takes less than a minute on a free machine.
        folder: --self-test: a folder on the disk to try. Everything made there is removed.
    """
    from rich.table import Table

    from lord_fast import __version__
    from lord_fast.doctor import findings

    table = Table("what", "found", title=f"lord-fast {__version__}")
    for row in findings():
        table.add_row(*row)
    out.print(table)
    if self_test:
        _try(folder)


def _try(folder: Path) -> None:
    from lord_fast.self_test import self_test

    failed = []
    for what, result, good in self_test(folder):
        out.print(f"{'good' if good else 'BAD '}  {what}: {result}", soft_wrap=True)
        failed += [] if good else [what]
    if failed:
        raise ValueError(f"self-test in {folder}: failed: {', '.join(failed)}")
    out.print(f"All good: runs in {folder.resolve()} survive a kill.", soft_wrap=True)
