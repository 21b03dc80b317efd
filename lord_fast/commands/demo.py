"""lord-fast demo: every command in turn, on the embedded glyphs."""

from pathlib import Path

from rich.console import Console

from lord_fast.commands import evaluate, pack, report, split, train, train_encoders
from lord_fast.config import PRESETS, encoder_defaults
from lord_fast.data.options import PackConfig
from lord_fast.evaluate.options import EvaluateConfig

HELD_OUT = 0.1
"""Share of each class's images that training does not see."""


def run(run_path: Path) -> None:
    """Pack, split, train, train-encoders, evaluate, report; a second call goes on."""
    console = Console(stderr=True, soft_wrap=True)
    store, trained, held_out = (
        run_path.with_name(f"{run_path.name}-{part}") for part in ("store", "train", "heldout")
    )
    if not store.exists():
        console.rule(f"lord-fast pack glyphs {store} --size 32")
        pack.run("glyphs", store, PackConfig(size=32))
    if not held_out.exists():
        console.rule(f"lord-fast split {store} {trained} {held_out} --images {HELD_OUT}")
        split.run(store, trained, held_out, classes=None, images=HELD_OUT, seed=0)
    console.rule(f"lord-fast train {trained} --run {run_path} --preset demo")
    train.run(trained, run_path, PRESETS["demo"])
    console.rule(f"lord-fast train-encoders {run_path}")
    train_encoders.run(run_path, encoder_defaults(PRESETS["demo"]))
    console.rule(f"lord-fast evaluate {run_path}")
    evaluate.run(run_path, EvaluateConfig())
    console.rule(f"lord-fast evaluate {run_path} --codes encoder --store {held_out}")
    evaluate.run(run_path, EvaluateConfig(codes="encoder", store=held_out))
    console.rule(f"lord-fast report {run_path}")
    report.run(run_path)
