"""Draws the curves of `lord-fast bench quality`."""

from itertools import groupby
from pathlib import Path

from lord_fast.bench.plot import DPI
from lord_fast.bench.points import Point, Points

PANELS = {
    "transfer": "transfer in dB",
    "perceptual": "LPIPS of transfer",
    "leakage": "leakage, linear probe",
    "leakage_mlp": "leakage, MLP probe",
}
AXES = {"seconds": "seconds of training", "images": "images seen"}
COLORS = ("#8a8f98", "#3f6fb5", "#c4643a", "#4f9d69", "#7a5aa8")
PANEL_WIDTH, PANEL_HEIGHT = 4.5, 2.3


def draw_curves(path: Path, points: Points, title: str) -> None:
    """Write a PNG with each figure over seconds and over images seen, one line per training.

    Args:
        path: The file to write.
        points: The points. The arms take the colours in their order.
        title: Title of the picture, such as the machine.
    """
    from matplotlib.figure import Figure

    panels = {name: label for name, label in PANELS.items() if _has(points, name)}
    size = (PANEL_WIDTH * len(AXES), PANEL_HEIGHT * len(panels))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(panels), len(AXES), squeeze=False)
    for row, name in zip(grid, panels, strict=True):
        for ax, axis in zip(row, AXES, strict=True):
            _panel(ax, points, axis, name)
        row[0].set_ylabel(panels[name], fontsize=8)
    for ax, label in zip(grid[-1], AXES.values(), strict=True):
        ax.set_xlabel(label, fontsize=8)
    grid[0, 0].legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=DPI, format="png")


def _panel(ax, points: Points, axis: str, name: str) -> None:
    colors = dict(zip(dict.fromkeys(p.arm for p in points), COLORS, strict=False))
    for (seed, arm), line in groupby(sorted(points, key=_training), _training):
        found = list(line)
        x = [getattr(point, axis) for point in found]
        y = [getattr(point.figures, name) for point in found]
        ax.plot(x, y, ".-", color=colors[arm], lw=1, label=arm if seed == points[0].seed else None)
    if name.startswith("leakage"):
        ax.axhline(points[0].figures.chance, color="#444444", lw=0.8, ls=":")
    ax.set_xscale("log")
    ax.minorticks_off()  # Their labels would overlap.
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)


def _training(point: Point) -> tuple[int, str]:
    return point.seed, point.arm


def _has(points: Points, name: str) -> bool:
    return getattr(points[0].figures, name) is not None
