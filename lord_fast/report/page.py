"""One self-contained HTML page of a run: no request leaves it, it works from the disk."""

import dataclasses
import html
import importlib.metadata
import io
import json
import platform
from pathlib import Path

import matplotlib
import matplotlib.figure

from lord_fast import __version__
from lord_fast.config import PRESETS, LoopConfig, encoder_defaults, load_encoder_config
from lord_fast.data.store import ImageStore
from lord_fast.figures import rows, title
from lord_fast.lord import Lord
from lord_fast.report import pictures

TEMPLATE = Path(__file__).with_name("page.html")
POINTS = 300
"""Points of a curve."""


def render(run: Path, lord: Lord, store: ImageStore) -> str:
    """The page of a run, with what the run's folder holds so far.

    Args:
        run: The run's folder.
        lord: Its stage 1.
        store: The images that it was trained on.

    Returns:
        HTML with every picture and script inside.
    """
    swaps = pictures.swaps(lord, store)
    data = {"swaps": swaps, "plane": pictures.plane(lord, store)}
    parts = {
        "TITLE": html.escape(run.resolve().name),
        "SUMMARY": html.escape(
            f"{store.num_images} images of {store.num_classes} classes, {store.size} x "
            f"{store.size}; {lord.step} steps of stage 1"
        ),
        **{f"SPRITE_{name.upper()}": uri for name, uri in swaps.pop("pictures").items()},
        "TRAVERSALS": pictures.traversals(lord),
        "INTERPOLATIONS": pictures.class_interpolations(lord, store),
        "METRICS": _metrics(run),
        "CURVES": _curves(run / "stats.jsonl"),
        "CONFIG": html.escape(_configuration(run)),
        "COMMANDS": html.escape("\n".join(_commands(run, lord))),
        "VERSIONS": html.escape(_versions()),
        "DATA": json.dumps(data).replace("<", "\\u003c"),
    }
    page = TEMPLATE.read_text()
    for name, value in parts.items():
        page = page.replace("{{" + name + "}}", value)
    return page


def _metrics(run: Path) -> str:
    files = sorted(run.glob("metrics*.json"), key=lambda file: (len(file.stem), file.stem))
    if not files:
        return "<p>Not measured yet: <code>lord-fast evaluate RUN</code>.</p>"
    return "".join(_metrics_table(file) for file in files)


def _metrics_table(file: Path) -> str:
    metrics = json.loads(file.read_text())
    body = "".join(
        "<tr><th scope=row>" + "</th><td>".join(map(html.escape, row[:2]))
        + f"</td><td>{html.escape(row[2])}</td></tr>"
        for row in rows(metrics)
    )  # fmt: skip
    return (
        f"<table><caption>{html.escape(file.name)}: {html.escape(title(metrics))}</caption><tr>"
        f"<th scope=col>what<th scope=col>figure [95 % interval]<th scope=col>chance or baseline"
        f"</tr>{body}</table>"
    )


def _curves(file: Path) -> str:
    if not file.is_file():
        return "<p>No steps yet.</p>"
    logged = [json.loads(line) for line in file.read_text().splitlines()]
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


def _commands(run: Path, lord: Lord) -> list[str]:
    """What repeats the run."""
    preset = lord.config.preset
    commands = [
        f"lord-fast train {lord.data['store']} --run {run} --preset {preset}"
        + _flags(lord.config, PRESETS[preset])
    ]
    if (run / "encoders.yaml").exists():
        config = load_encoder_config(run / "encoders.yaml")
        defaults = encoder_defaults(lord.config)
        commands.append(f"lord-fast train-encoders {run}" + _flags(config, defaults))
    commands += [f"lord-fast evaluate {run}", f"lord-fast report {run}"]
    return commands


def _flags(config: LoopConfig, defaults: LoopConfig) -> str:
    flags = ""
    for field in dataclasses.fields(config):
        value, flag = getattr(config, field.name), f"--{field.name.replace('_', '-')}"
        if value == getattr(defaults, field.name):
            continue
        if isinstance(value, bool):
            flags += f" {flag}" if value else f" --no-{flag[2:]}"
        else:
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
            flags += f" {flag} {shown}"
    return flags


def _versions() -> str:
    packages = ("torch", "numpy", "pillow", "scikit-learn")
    found = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    return ", ".join((f"lord-fast {__version__}", f"Python {platform.python_version()}", *found))
