"""Horizontal bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

from align_bench.report.plots.canvas import canvas, distinct, grid_of, label, title_of
from align_bench.report.plots.looks import HUES


def bars(names: Sequence[str], panels: Mapping[str, Sequence[float | None]]) -> str:
    """One panel per quantity, one row per name; None is left out.

    Args:
        names: the rows.
        panels: label of the quantity → a value for each name.

    Returns:
        SVG text in the page's colours.
    """
    with canvas(0.7 + 0.22 * len(names)) as (drawing, svg):
        grid = drawing.subplots(1, len(panels), squeeze=False, sharey=True).ravel()
        for axes, (quantity, values) in zip(grid, panels.items(), strict=True):
            axes.grid(axis="y", visible=False)
            for place, value in enumerate(values):
                if value is not None:
                    axes.barh(place, value, height=0.62, color=HUES[0])
            axes.set_xlabel(quantity)
            axes.set_yticks(range(len(names)), distinct(names))
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.locator_params(axis="x", nbins=4)
        return svg()


def ladders(lists: Mapping[str, Sequence[tuple[str, float]]]) -> str:
    """Short lists of words with a bar each, the largest first.

    Args:
        lists: title → words with their weights.

    Returns:
        SVG text in the page's colours.
    """
    columns = min(3, len(lists))
    longest = max(map(len, lists.values()))
    with canvas(ceil(len(lists) / columns) * (0.45 + 0.16 * longest)) as (drawing, svg):
        for axes, (title, words) in zip(grid_of(drawing, len(lists), columns), lists.items(), strict=True):
            axes.grid(visible=False)
            axes.barh(range(len(words)), [weight for _, weight in words], height=0.7, color=HUES[0])
            axes.set_yticks(range(len(words)), [label(word, 18) for word, _ in words])
            axes.set_ylim(longest - 0.4, -0.6)
            axes.locator_params(axis="x", nbins=3)
            axes.set_title(title_of(title, columns))
        return svg()
