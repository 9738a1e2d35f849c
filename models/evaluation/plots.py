"""Plots of a report as SVG text: the same report, the same bytes."""

import io
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from models.evaluation.metrics import COVERAGE_LEVELS
from models.evaluation.results import Report, Timings
from models.evaluation.tables import HEADLINES, LOWER_IS_BETTER, NAMES

UNPLOTTED = {"random", "constant"}
"""Rows so far off that the others could not be told apart beside them."""
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "warmstart",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
}


def curve(report: Report) -> str:
    """The headline figure of each row over the groups of questions."""
    figure = HEADLINES[report.measure][0]

    def draw(axes: Axes) -> None:
        groups = list(report.groups)
        for row in report.rows:
            figures = [row.cells[group].figures if group in row.cells else {} for group in groups]
            if row.name not in UNPLOTTED and all(figure in known for known in figures):
                axes.plot(groups, [known[figure] for known in figures], marker="o", markersize=3, label=row.name)
        axes.set_ylabel(NAMES.get(figure, figure))
        axes.grid(alpha=0.3)
        _legend(axes)

    return svg(draw)


def calibration(report: Report) -> str:
    """What share of ratings the intervals cover against what they promise."""

    def draw(axes: Axes) -> None:
        axes.plot([0.4, 1], [0.4, 1], color="grey", linestyle="--", linewidth=1)
        for row in report.rows:
            cells = list(row.cells.values())
            names = [f"coverage@{level:.0%}" for level in COVERAGE_LEVELS]
            if all(name in cell.figures for cell in cells for name in names):
                shares = [sum(cell.figures[name] for cell in cells) / len(cells) for name in names]
                axes.plot(COVERAGE_LEVELS, shares, marker="o", markersize=3, label=row.name)
        axes.set_xlabel("promised")
        axes.set_ylabel("covered")
        axes.grid(alpha=0.3)
        _legend(axes)

    return svg(draw)


def accuracy_against_speed(report: Report, timings: Timings) -> str:
    """The headline figure, mean over the groups, against the time to adapt and score; left is faster."""
    figure = HEADLINES[report.measure][0]

    def draw(axes: Axes) -> None:
        for row in report.rows:
            timing = timings.rows.get(row.name)
            values = [cell.figures.get(figure) for cell in row.cells.values()]
            known = [value for value in values if value is not None]
            if row.name in UNPLOTTED or timing is None or not timing.scoring_microseconds or not known:
                continue
            x, y = timing.scoring_microseconds, sum(known) / len(known)
            axes.scatter(x, y, s=12)
            axes.annotate(row.name, (x, y), textcoords="offset points", xytext=(4, 3))
        axes.set_xscale("log")
        axes.set_xlabel("µs a user")
        better = "lower" if figure in LOWER_IS_BETTER else "higher"
        axes.set_ylabel(f"{NAMES.get(figure, figure)} ({better} is better)")
        axes.grid(alpha=0.3)

    return svg(draw)


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def svg(draw: Callable[[Axes], None]) -> str:
    """A figure of one set of axes."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        draw(figure.add_subplot())
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
