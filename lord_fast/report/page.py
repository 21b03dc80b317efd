"""The report of a run, a self-contained HTML page that makes no requests and works offline."""

import html
import json
import platform
import re
from pathlib import Path

from lord_fast import __version__
from lord_fast.atomic import atomic_write
from lord_fast.data.store import ImageStore, open_store
from lord_fast.lord import Lord
from lord_fast.progress import Parts, Progress, silent
from lord_fast.report import cards, pictures, strips
from lord_fast.run.history import Command, read_history
from lord_fast.run.metrics import Metrics, read_metrics
from lord_fast.run.stats import read_stats
from lord_fast.system import package_version

HERE = Path(__file__).parent
PARTS = 7
"""Number of parts of a page that take time."""


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
    lord = Lord.load(run)
    images, page = open_store(run, lord.data, store), run / "report.html"
    lord.data["store"] = str(images.path.resolve())  # The density reads labels from the store.
    if command is not None:
        command.record(run)
    atomic_write(page, render(run, lord, images, progress))
    return page


def render(run: Path, lord: Lord, store: ImageStore, progress: Progress = silent) -> str:
    """Render the report of a run from the files that its folder contains so far.

    Args:
        run: The run's folder.
        lord: The model of the run.
        store: The store that it was trained on.
        progress: Is told of the pictures that are drawn.

    Returns:
        HTML that contains all pictures and scripts.

    Raises:
        ValueError: A metrics*.json or the stats.jsonl of the run is damaged.
    """
    measured = read_metrics(run)
    part = Parts(progress, PARTS)
    stats = run / "stats.jsonl"
    swaps, plane = part(pictures.swaps(lord, store)), part(pictures.plane(lord, store))
    sheets = {**swaps.pop("pictures"), "points": plane.pop("picture")}
    curves = pictures.curves(read_stats(stats)) if stats.is_file() else {}
    return _fill("page.html", {
        "TITLE": html.escape(run.resolve().name),
        "SUMMARY": html.escape(
            f"{store.num_images} images of {store.num_classes} classes, {store.size} x "
            f"{store.size} pixels, {lord.steps['latent']} steps of stage 1"
            + (f", {lord.steps['encoders']} of stage 2" if lord.encoders else "")
        ),
        "STYLE": (HERE / "page.css").read_text(),
        "SHEETS": "".join(f"--{name}: url({uri}); " for name, uri in sheets.items()),
        "CARDS": cards.cards(measured),
        "MEANINGS": cards.meanings(),
        **_drawn(part, lord, store, measured),
        "METRICS": _metrics(measured),
        "CONFIG": html.escape(_configuration(run)),
        "COMMANDS": html.escape("\n".join((*read_history(store.path), *read_history(run)))),
        "VERSIONS": html.escape(_versions()),
        "DATA": _json({"swaps": swaps, "plane": plane, "curves": curves}),
        "CHART": (HERE / "chart.umd.min.js").read_text(),
        "SCRIPT": (HERE / "page.js").read_text(),
    })  # fmt: skip


def _drawn(part: Parts, lord: Lord, store: ImageStore, measured: list[Metrics]) -> dict[str, str]:
    """Render the pictures that do not change."""
    rows = "Top: images of training. Below: decoded from their codes of stage 1"
    rows += ", and from the codes that the encoders predict." if lord.encoders else "."
    return {
        "RECONSTRUCTIONS": _figure(part(strips.reconstructions(lord, store)), rows),
        "HELD_OUT": part(_held_out(lord, measured)),
        "SAMPLES": _figure(
            part(strips.samples(lord)),
            "New images. Their content is drawn from a density of the content codes, and their "
            "classes are those of training.",
        ),
        "TRAVERSALS": _figure(
            part(strips.traversals(lord)),
            "All images have the same class. Each row moves along one principal direction of the "
            "content codes, from two standard deviations below the mean to two above it.",
        ),
        "INTERPOLATIONS": _figure(
            part(strips.class_interpolations(lord, store)),
            "Each row goes from one class to another and keeps its content.",
        ),
    }


def _held_out(lord: Lord, measured: list[Metrics]) -> str:
    """Render a swap grid of the held-out images that `evaluate` has measured last."""
    if lord.encoders is None:
        return "<p>Train the encoders to see images that training has not seen.</p>"
    paths = [
        Path(metrics.values["store"]["path"])
        for metrics in measured
        if metrics.values["codes"] == "encoder" and "path" in metrics.values["store"]
    ]
    for path in reversed(paths):
        try:
            store = ImageStore(path)
        except ValueError as error:
            return f"<p>The held-out images cannot be shown: {html.escape(str(error))}</p>"
        if store.sha256 != lord.data["sha256"]:
            text = f"Images of {path.name}, through the encoders. Left: class. Above: content."
            return _figure(strips.held_out(lord, store), text)
    return (
        "<p>None were measured. Hold some out with <code>lord-fast split</code>, and measure them "
        "with <code>lord-fast evaluate RUN --codes encoder --store HELDOUT</code>.</p>"
    )


def _figure(uri: str, caption: str) -> str:
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="{uri}"><figcaption>{text}</figcaption></figure>'


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
    name = html.escape(f"{metrics.file.name}: {cards.subject(metrics)}")
    return (
        f'<details><summary>{name}</summary><div class="scroll"><table><caption>'
        f"{html.escape(metrics.title)}</caption>"
        f"<tr><th scope=col>metric<th scope=col>value [95 % interval]<th scope=col>chance or "
        f"baseline</tr>{body}</table></div></details>"
    )


def _configuration(run: Path) -> str:
    files = [run / name for name in ("config.yaml", "encoders.yaml") if (run / name).exists()]
    return "\n".join(f"# {file.name}\n{file.read_text()}" for file in files)


def _versions() -> str:
    packages = ("torch", "numpy", "pillow", "scikit-learn")
    found = [f"{name} {package_version(name) or '(unknown)'}" for name in packages]
    return ", ".join((f"lord-fast {__version__}", f"Python {platform.python_version()}", *found))


def _json(data: dict) -> str:
    return json.dumps(data).replace("<", "\\u003c")


def _fill(template: str, parts: dict[str, str]) -> str:
    """Replace every {{NAME}} of a template once, so that values may contain braces."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], (HERE / template).read_text())
