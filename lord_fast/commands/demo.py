"""lord-fast demo: every command in turn, on the embedded glyphs."""

from pathlib import Path

from rich.console import Console

from lord_fast.commands import evaluate, pack, report, train
from lord_fast.config import PRESETS, PackConfig


def run(run_path: Path) -> None:
    """Pack, train, evaluate, report; a second call goes on where the first was stopped."""
    console = Console(stderr=True, soft_wrap=True)
    store = run_path.with_name(f"{run_path.name}-store")
    if not store.exists():
        console.rule(f"lord-fast pack glyphs {store} --size 32")
        pack.run("glyphs", store, PackConfig(size=32))
    console.rule(f"lord-fast train {store} --run {run_path} --preset demo")
    train.run(store, run_path, PRESETS["demo"])
    console.rule(f"lord-fast evaluate {run_path}")
    evaluate.run(run_path, store_path=None, weights=None, seed=0)
    console.rule(f"lord-fast report {run_path}")
    report.run(run_path)
