"""lord-fast evaluate."""

import json
from pathlib import Path

from rich.console import Console

from lord_fast.build import build_vgg
from lord_fast.data.store import ImageStore
from lord_fast.evaluate.evaluate import evaluate, table
from lord_fast.lord import Lord
from lord_fast.run import open_store, same_store


def run(run_path: Path, store_path: Path | None, weights: Path | None, seed: int) -> dict:
    """Measure a run, print a table and write metrics.json."""
    lord = Lord.load(run_path)
    if store_path is None:
        store = open_store(run_path, lord.data)
    else:
        store = same_store(run_path, lord.data, ImageStore(store_path))
    vgg = None
    if weights is not None or lord.config.loss == "vgg16":
        vgg = build_vgg(lord.config, weights or lord.config.perceptual_weights).to(lord.device)
    metrics = evaluate(lord, store, vgg, seed)
    partial = run_path / "metrics.partial"
    partial.write_text(json.dumps(metrics, indent=1) + "\n")
    partial.replace(run_path / "metrics.json")
    Console().print(table(metrics))
    return metrics
