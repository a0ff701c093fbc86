"""Differences with their intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from align_bench.report.plots.canvas import canvas, distinct, title_of
from align_bench.report.plots.looks import GRID, HUES, MUTED


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of a forest: a difference, its interval, and the largest one too small to be shown.

    Attributes:
        value, low, high: the estimate and its interval.
        hidden: differences within ±hidden are missed with more than 20% probability.
        strong: whether the difference was shown.
    """

    value: float
    low: float
    high: float
    hidden: float | None
    strong: bool


def forest(panels: Mapping[str, Mapping[str, Bar]]) -> str:
    """Differences with intervals around zero: one panel per metric, one row per name.

    Args:
        panels: metric → name → difference; every panel shows all names, in the order of their first appearance.

    Returns:
        SVG text in the page's colours.
    """
    names = list(dict.fromkeys(name for bars in panels.values() for name in bars))
    with canvas(0.95 + 0.24 * len(names)) as (drawing, svg):
        grid = drawing.subplots(1, len(panels), squeeze=False, sharey=True).ravel()
        for axes, (metric, bars) in zip(grid, panels.items(), strict=True):
            axes.use_sticky_edges = False
            axes.axvline(0, color=MUTED, linewidth=0.8)
            axes.grid(axis="y", visible=False)
            for place, name in enumerate(names):
                if (bar := bars.get(name)) is None:
                    continue
                if bar.hidden is not None:
                    axes.barh(place, 2 * bar.hidden, left=-bar.hidden, height=0.8, color=GRID)
                hue = HUES[0] if bar.strong else MUTED
                axes.plot([bar.low, bar.high], [place, place], color=hue, linewidth=1.6)
                axes.plot([bar.value], [place], "o", color=hue, markersize=4.5)
            axes.set_title(title_of(metric, len(panels)))
            axes.set_xlabel("difference")
            axes.set_yticks(range(len(names)), distinct(names))
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.locator_params(axis="x", nbins=5)
        return svg()
