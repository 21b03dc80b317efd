"""One self-contained HTML page of a run: swap grid, metrics, curves, configuration."""

import base64
import html
import io
import json
from pathlib import Path

import matplotlib.figure
import numpy as np
from PIL import Image

from lord_fast import __version__

TEMPLATE = Path(__file__).with_name("page.html")


def render(run: Path) -> str:
    """The page of a run, with what the run's folder holds so far.

    Args:
        run: The run's folder.

    Returns:
        HTML with every picture inside.
    """
    parts = {
        "TITLE": html.escape(run.resolve().name),
        "GRID": _grid(run),
        "METRICS": _metrics(run / "metrics.json"),
        "CURVES": _curves(run / "stats.jsonl"),
        "CONFIG": html.escape((run / "config.yaml").read_text()),
        "VERSION": __version__,
    }
    page = TEMPLATE.read_text()
    for name, value in parts.items():
        page = page.replace("{{" + name + "}}", value)
    return page


def _grid(run: Path) -> str:
    grids = sorted((run / "grids").glob("*.png"))
    if not grids:
        return "<p>No grid yet.</p>"
    return _image(np.asarray(Image.open(grids[-1])), "swap grid")


def _metrics(file: Path) -> str:
    if not file.is_file():
        return "<p>Not measured yet: lord-fast evaluate RUN.</p>"
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in _flat(json.loads(file.read_text()))
    )
    return f"<table>{rows}</table>"


def _flat(value, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [row for k, v in value.items() for row in _flat(v, f"{prefix} {k}".strip())]
    return [(prefix, f"{value:.4f}" if isinstance(value, float) else str(value))]


def _curves(file: Path) -> str:
    if not file.is_file():
        return "<p>No steps yet.</p>"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    figure = matplotlib.figure.Figure(figsize=(8, 3), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("loss", "lr"), strict=True):
        for stage in dict.fromkeys(row["stage"] for row in rows):
            points = [(row["step"], row[name]) for row in rows if row["stage"] == stage]
            axes.plot(*zip(*points, strict=True), label=stage)
        axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.set_title(name)
        axes.legend()
    file_like = io.StringIO()
    figure.savefig(file_like, format="svg")
    return file_like.getvalue()[file_like.getvalue().index("<svg") :]


def _image(pixels: np.ndarray, alt: str) -> str:
    file_like = io.BytesIO()
    Image.fromarray(pixels).save(file_like, format="PNG", optimize=True)
    data = base64.b64encode(file_like.getvalue()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'
