"""Curves, histograms and points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Literal

import numpy as np

from align_bench.report.plots.canvas import Numbers, canvas, distinct, grid_of, title_of
from align_bench.report.plots.looks import MUTED, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_UNNAMED = ("bars", "thin")  # marks that stand in no legend
_LEGEND_ROWS = 3  # for which a drawing has room without growing


@dataclass(frozen=True, slots=True)
class Series:
    """One curve, histogram or set of points.

    Attributes:
        name: its entry in the legend; the same name in several panels is one entry, an empty one none.
        x, y: coordinates; of bars, `x` holds the edges, one more than `y`.
        look: colour and dashes.
        mark: how it is drawn; `area` is a line with a tint below it.
        low, high: bounds of an interval around `y`.
    """

    name: str
    x: Numbers
    y: Numbers
    look: Look
    mark: Literal["line", "thin", "area", "bars", "points"] = "line"
    low: Numbers | None = None
    high: Numbers | None = None


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes.

    Attributes:
        title, x_label, y_label: literal text.
        series: what is drawn, in order.
        level: a horizontal line for reference, such as chance.
        diagonal: draw y = x, from ½ to 1 along x and from 0 to 1 along y: a share against a confidence.
        y_ticks: whether heights can be read off; of a density only its shape says something.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    level: float | None = None
    diagonal: bool = False
    y_ticks: bool = True


def curves(panels: Sequence[Panel], *, columns: int = 3, height: float = 2.0) -> str:
    """Panels of curves, histograms and points under one legend.

    Args:
        panels: what to draw.
        columns: panels per row.
        height: of a row, in inches.

    Returns:
        SVG text in the page's colours; see `standalone`.
    """
    columns = 2 if len(panels) == 4 else min(columns, len(panels))
    entries: dict[str, Line2D] = {}
    named = {one.name: None for panel in panels for one in panel.series if one.name and one.mark not in _UNNAMED}
    beyond = max(0, ceil(len(named) / _per_row(distinct(list(named)))) - _LEGEND_ROWS) if named else 0
    with canvas(ceil(len(panels) / columns) * height + 0.35 + 0.2 * beyond) as (drawing, svg):
        shared = len({panel.y_label for panel in panels}) == 1, len({panel.x_label for panel in panels}) == 1
        grid = grid_of(drawing, len(panels), columns)
        for place, (axes, panel) in enumerate(zip(grid, panels, strict=True)):
            _draw(axes, panel, entries)
            axes.set_title(title_of(panel.title, columns))
            axes.set_ylabel("" if shared[0] and place % columns else panel.y_label)
            axes.set_xlabel("" if shared[1] and place < len(panels) - columns else panel.x_label)
        if shared[1] and len({axes.get_xlim() for axes in grid}) == 1:  # the lowest panel of a column says it for all
            for axes in grid[:-columns]:
                axes.tick_params(axis="x", labelbottom=False)
        if len(entries) > 1:
            _legend(drawing, entries)
        return svg()


def _draw(axes: Axes, panel: Panel, entries: dict[str, Line2D]) -> None:
    if panel.level is not None:
        axes.axhline(panel.level, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    if panel.diagonal:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_xlim(0.49, 1.01)
        axes.set_ylim(-0.02, 1.02)
    for series in panel.series:
        line = _line(axes, series, alone=len(panel.series) == 1)
        if line is not None and series.name:
            entries.setdefault(series.name, line)
    axes.locator_params(axis="x", nbins=5)
    if panel.y_ticks:
        axes.locator_params(axis="y", nbins=5)
    else:
        axes.set_yticks([])


def _line(axes: Axes, series: Series, *, alone: bool) -> Line2D | None:
    """Draws one series; returns what stands for it in a legend, None for what stands in none."""
    hue = series.look.hue
    x, y = np.asarray(series.x, dtype=float), np.asarray(series.y, dtype=float)
    if series.mark == "bars":
        axes.stairs(y, x, fill=True, color=hue, alpha=0.7 if alone else 0.25)
        return None
    if series.mark == "thin":
        axes.plot(x, y, color=hue, linewidth=0.6, alpha=0.35)
        return None
    if series.mark == "area":
        axes.fill_between(x, 0, y, color=hue, alpha=0.14, linewidth=0)
    if series.low is not None and series.high is not None:
        axes.vlines(x, series.low, series.high, color=hue, linewidth=1.1)
    marker = "o" if series.mark == "points" or series.low is not None else "none"
    style = "none" if series.mark == "points" else series.look.dash
    (line,) = axes.plot(x, y, color=hue, linestyle=style, marker=marker, markersize=4.5)
    return line


def _legend(drawing: Figure, entries: dict[str, Line2D]) -> None:
    texts = distinct(list(entries))
    ncols = _per_row(texts)
    drawing.legend(list(entries.values()), texts, loc="outside upper left", ncols=ncols, handlelength=1.6)


def _per_row(texts: Sequence[str]) -> int:
    """Entries of a legend that fit beside each other."""
    return max(1, min(len(texts), 90 // (max(map(len, texts)) + 6)))
