"""lord-fast report."""

from pathlib import Path

from rich.console import Console

from lord_fast.config import load_config
from lord_fast.report.page import render


def run(run_path: Path) -> None:
    """Write RUN/report.html."""
    load_config(run_path / "config.yaml")
    file = run_path / "report.html"
    partial = file.with_suffix(".partial")
    partial.write_text(render(run_path))
    partial.replace(file)
    Console(stderr=True, soft_wrap=True).print(f"look at {file}")
