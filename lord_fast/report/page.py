"""The report of a run, a self-contained HTML page that makes no requests and works offline."""

import html
import io
import json
import platform
from pathlib import Path

import matplotlib
import matplotlib.figure

from lord_fast import __version__
from lord_fast.atomic import atomic_write
from lord_fast.data.store import ImageStore, open_store
from lord_fast.lord import Lord
from lord_fast.progress import Parts, Progress, silent
from lord_fast.report import pictures
from lord_fast.run.history import Command, read_history
from lord_fast.run.metrics import Metrics, read_metrics
from lord_fast.run.stats import read_stats
from lord_fast.system import package_version

TEMPLATE = Path(__file__).with_name("page.html")
POINTS = 300
"""Maximum number of points of a curve."""


def write_report(
    run: Path,
    store: Path | None = None,
    command: Command | None = None,
    progress: Progress = silent,
) -> Path:
    """Write RUN/report.html.

    Args:
        run: The run's folder.
        store: Where its store is now, if it has moved.
        command: Recorded in the run's history, which is on the page.
        progress: Is told of the pictures that are drawn.

    Returns:
        The page.

    Raises:
        ValueError: there is no stage 1 yet, its store is gone, or a file of the run is damaged.
    """
    lord = Lord.load(run, stage="latent")
    images, page = open_store(run, lord.data, store), run / "report.html"
    if command is not None:
        command.record(run)
    atomic_write(page, render(run, lord, images, progress))
    return page


def render(run: Path, lord: Lord, store: ImageStore, progress: Progress = silent) -> str:
    """Render the report of a run from the files that its folder contains so far.

    Args:
        run: The run's folder.
        lord: The model of the run, with stage 1 loaded.
        store: The store that it was trained on.
        progress: Is told of the pictures that are drawn.

    Returns:
        HTML that contains all pictures and scripts.

    Raises:
        ValueError: A metrics*.json or the stats.jsonl of the run is damaged.
    """
    measured = read_metrics(run)
    part = Parts(progress, 5)
    swaps = part(pictures.swaps(lord, store))
    data = {"swaps": swaps, "plane": part(pictures.plane(lord, store))}
    parts = {
        "TITLE": html.escape(run.resolve().name),
        "SUMMARY": html.escape(
            f"{store.num_images} images of {store.num_classes} classes, {store.size} x "
            f"{store.size} pixels, {lord.step} steps of stage 1"
        ),
        **{f"SPRITE_{name.upper()}": uri for name, uri in swaps.pop("pictures").items()},
        "TRAVERSALS": part(pictures.traversals(lord)),
        "INTERPOLATIONS": part(pictures.class_interpolations(lord, store)),
        "METRICS": _metrics(measured),
        "CURVES": part(_curves(run / "stats.jsonl")),
        "CONFIG": html.escape(_configuration(run)),
        "COMMANDS": html.escape("\n".join((*read_history(store.path), *read_history(run)))),
        "VERSIONS": html.escape(_versions()),
        "DATA": json.dumps(data).replace("<", "\\u003c"),
    }
    page = TEMPLATE.read_text()
    for name, value in parts.items():
        page = page.replace("{{" + name + "}}", value)
    return page


def _metrics(measured: list[Metrics]) -> str:
    if not measured:
        return "<p>No metrics yet. Run <code>lord-fast evaluate RUN</code>.</p>"
    return "".join(map(_metrics_table, measured))


def _metrics_table(metrics: Metrics) -> str:
    body = "".join(
        "<tr><th scope=row>" + "</th><td>".join(map(html.escape, row[:2]))
        + f"</td><td>{html.escape(row[2])}</td></tr>"
        for row in metrics.rows
    )  # fmt: skip
    return (
        f"<table><caption>{html.escape(metrics.file.name)}: {html.escape(metrics.title)}</caption>"
        f"<tr><th scope=col>metric<th scope=col>value [95 % interval]<th scope=col>chance or "
        f"baseline</tr>{body}</table>"
    )


def _curves(file: Path) -> str:
    if not file.is_file():
        return "<p>No steps yet.</p>"
    logged = read_stats(file)
    figure = matplotlib.figure.Figure(figsize=(8, 3), layout="constrained")
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lord-fast"}):
        for axes, name in zip(figure.subplots(1, 2), ("reconstruction", "lr"), strict=True):
            for stage in dict.fromkeys(row["stage"] for row in logged):
                points = [(row["step"], row[name]) for row in logged if row["stage"] == stage]
                points = points[:: -(-len(points) // POINTS)]
                axes.plot(*zip(*points, strict=True), label=stage)
            axes.set_yscale("log")
            axes.set_xlabel("step")
            axes.set_title(name)
            axes.legend()
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()[stream.getvalue().index("<svg") :]


def _configuration(run: Path) -> str:
    files = [run / name for name in ("config.yaml", "encoders.yaml") if (run / name).exists()]
    return "\n".join(f"# {file.name}\n{file.read_text()}" for file in files)


def _versions() -> str:
    packages = ("torch", "numpy", "pillow", "scikit-learn")
    found = [f"{name} {package_version(name) or '(unknown)'}" for name in packages]
    return ", ".join((f"lord-fast {__version__}", f"Python {platform.python_version()}", *found))
