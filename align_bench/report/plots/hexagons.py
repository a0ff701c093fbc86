"""Clouds of many points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from align_bench.report.plots.canvas import Numbers, canvas, grid_of, title_of
from align_bench.report.plots.looks import HUES, rgb


@dataclass(frozen=True, slots=True)
class Cloud:
    """Many points, drawn as hexagons whose tint is their count, with the means of bins of x over them."""

    title: str
    x: Numbers
    y: Numbers
    bin_x: Numbers
    bin_y: Numbers


def hexagons(clouds: Sequence[Cloud], *, x_label: str, y_label: str, columns: int = 3) -> str:
    """Clouds of points side by side.

    Returns:
        SVG text in the page's colours.
    """
    columns = min(columns, len(clouds))
    with canvas(2.1 * ceil(len(clouds) / columns) + 0.2) as (drawing, svg):
        for place, (axes, cloud) in enumerate(zip(grid_of(drawing, len(clouds), columns), clouds, strict=True)):
            cells = axes.hexbin(cloud.x, cloud.y, gridsize=(16, 10), mincnt=1, linewidths=0)
            counts = np.asarray(cells.get_array())
            tints = np.ceil(6 * np.sqrt(counts / counts.max())) / 6  # few tints keep the drawing small
            cells.set_array(None)
            cells.set_facecolor([(*rgb(HUES[0]), 0.12 + 0.7 * tint) for tint in tints])
            cells.set_edgecolor("none")
            axes.plot(cloud.bin_x, cloud.bin_y, color=HUES[1], linewidth=1.8, marker="o", markersize=3.5)
            axes.set_title(title_of(cloud.title, columns))
            axes.set_xlabel(x_label if place >= len(clouds) - columns else "")
            axes.set_ylabel(y_label if place % columns == 0 else "")
            axes.locator_params(nbins=5)
        return svg()
