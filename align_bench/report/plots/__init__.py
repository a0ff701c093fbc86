"""Figures as small SVG texts. What they show is decided in `figures`; here they are only drawn.

Each module has one kind of drawing; `canvas` holds what all of them share.
"""

from align_bench.report.plots.bars import bars, ladders
from align_bench.report.plots.canvas import standalone
from align_bench.report.plots.curves import Panel, Series, curves
from align_bench.report.plots.forest import Bar, forest
from align_bench.report.plots.heatmap import Shares, heatmap
from align_bench.report.plots.hexagons import Cloud, hexagons
from align_bench.report.plots.looks import MUTED, Look, looks

__all__ = [
    "MUTED",
    "Bar",
    "Cloud",
    "Look",
    "Panel",
    "Series",
    "Shares",
    "bars",
    "curves",
    "forest",
    "heatmap",
    "hexagons",
    "ladders",
    "looks",
    "standalone",
]
