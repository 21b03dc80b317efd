"""lord-fast report."""

from pathlib import Path

from rich.console import Console

from lord_fast.atomic import atomic_write
from lord_fast.data.store import open_store
from lord_fast.lord import Lord
from lord_fast.report.page import render


def run(run_path: Path, store_path: Path | None = None) -> None:
    """Write RUN/report.html."""
    lord = Lord.load(run_path, stage="latent")
    page = render(run_path, lord, open_store(run_path, lord.data, store_path))
    file = run_path / "report.html"
    atomic_write(file, page)
    size = f"{len(page.encode()) / 1000:.0f} kB"
    Console(stderr=True, soft_wrap=True).print(f"look at {file} ({size})", highlight=False)
