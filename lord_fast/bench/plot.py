"""Draws the results of a benchmark as bar charts, one per group."""

from pathlib import Path

from lord_fast.bench.measure import Row

ROW_HEIGHT, WIDTH, DPI = 0.32, 9.0, 110
BASE, OTHER = "#8a8f98", "#3f6fb5"


def draw(path: Path, rows: list[Row], title: str) -> None:
    """Write a PNG with medians as bars, ranges as error bars and ratios to the base as labels.

    Args:
        path: The file to write.
        rows: The results.
        title: Title of the picture, such as the machine.
    """
    from matplotlib.figure import Figure

    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    heights = [1 + len(members) for members in groups.values()]
    figure = Figure(figsize=(WIDTH, ROW_HEIGHT * (sum(heights) + 2)), layout="constrained")
    axes = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, (group, members) in zip(axes, groups.items(), strict=True):
        _bars(ax, group, members)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=DPI, format="png")


def _bars(ax, group: str, rows: list[Row]) -> None:
    medians = [row.median_ms for row in rows]
    below = [row.median_ms - row.min_ms for row in rows]
    above = [row.max_ms - row.median_ms for row in rows]
    colors = [BASE, *[OTHER] * (len(rows) - 1)]
    names = [row.name for row in rows]
    ax.barh(names, medians, xerr=[below, above], color=colors, ecolor="#444444", capsize=2)
    for place, row in enumerate(rows):
        ax.annotate(
            f" {row.ratio_to_base:.3g}x",
            (row.max_ms, place),
            va="center",
            fontsize=8,
        )
    ax.margins(x=0.12)
    ax.invert_yaxis()
    ax.set_title(group, loc="left", fontsize=9)
    ax.set_xlabel("median in ms, with minimum and maximum", fontsize=8)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
