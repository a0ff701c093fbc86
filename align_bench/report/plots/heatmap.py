"""A matrix of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from align_bench.report.plots.canvas import WIDTH, canvas, distinct
from align_bench.report.plots.looks import GRID, HUES, rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle

MOST_WRITTEN = 14  # columns whose fields have room for their number


@dataclass(frozen=True, slots=True)
class Shares:
    """A square matrix of shares.

    Attributes:
        names: of its rows and its columns.
        values: [rows][columns]; None is left blank.
        x_label, y_label: what columns and rows are.
    """

    names: Sequence[str]
    values: Sequence[Sequence[float | None]]
    x_label: str = ""
    y_label: str = ""


def heatmap(shares: Shares) -> str:
    """Shares as percentages, tinted by their distance from one half: blue above, vermilion below.

    Returns:
        SVG text in the page's colours.
    """
    names = distinct(shares.names)
    height = 0.8 + 0.27 * len(names) + 0.055 * max(map(len, names))
    with canvas(height, width=min(WIDTH, 1.9 + 0.62 * len(names))) as (drawing, svg):
        axes = drawing.subplots()
        axes.grid(visible=False)
        for y, line in enumerate(shares.values):
            for x, value in enumerate(line):
                if value is None:
                    continue
                axes.add_patch(_field(x, y, value))
                if len(names) <= MOST_WRITTEN:
                    axes.text(x, y, f"{value:.0%}", ha="center", va="center", fontsize=8)
        _name(axes, names)
        axes.set_xlabel(shares.x_label)
        axes.set_ylabel(shares.y_label)
        return svg()


def _name(axes: Axes, names: Sequence[str]) -> None:
    """Names beside the rows and below the columns, without any line around the matrix."""
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
    for tick in axes.get_xticklabels():
        tick.set_rotation_mode("anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _field(x: int, y: int, share: float) -> Rectangle:
    from matplotlib.patches import Rectangle

    distance = (share - 0.5) / 0.5
    tint = (*rgb(HUES[0] if distance > 0 else HUES[1]), round(0.62 * min(1.0, abs(distance)), 2))
    return Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=tint, edgecolor=GRID, linewidth=0.6)
