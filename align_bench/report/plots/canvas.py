"""What all drawings share: style, labels, and the way from matplotlib to a small SVG text.

Text stays text. Nothing is set with pyplot, so that no global state is left behind.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from align_bench.report.formatting import one_line
from align_bench.report.plots.looks import GRID, INK, MUTED, VARIABLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Numbers = Sequence[float] | npt.NDArray[np.floating] | npt.NDArray[np.integer]

WIDTH = 7.2  # inches
MOST_LINES = 3  # of a title, or one more where words do not fill them
MAX_LABEL = 34  # characters of a label; a title has as many as its panel is wide
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "align-bench",
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # where it is put anyway, since no ticks are above; else each layout looks for some
    "axes.labelsize": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlecolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.5,
}


@contextmanager
def canvas(height: float, width: float = WIDTH) -> Iterator[tuple[Figure, Callable[[], str]]]:
    """An empty drawing, and what makes an SVG text of it once it is drawn.

    Args:
        height, width: inches.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    def svg() -> str:
        for axes in drawing.axes:
            for axis in (axes.xaxis, axes.yaxis):
                if not axis.get_label_text():  # its place would be found by laying out all ticks, again and again
                    axis.label.set_visible(False)
                    axis.set_label_coords(0, 0)
        # `savefig` would find the layout by drawing all of it once more.
        FigureCanvasSVG(drawing)
        layout = drawing.get_layout_engine()
        assert layout is not None
        layout.execute(drawing)
        drawing.set_layout_engine(None)
        stream = io.StringIO()
        drawing.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return _slim(stream.getvalue())

    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the reader's browser has another
        drawing = Figure(figsize=(width, height), layout="constrained")
        yield drawing, svg


def grid_of(drawing: Figure, count: int, columns: int) -> list[Axes]:
    """Axes for `count` panels, row by row."""
    axes: list[Axes] = drawing.subplots(-(-count // columns), columns, squeeze=False).ravel().tolist()
    for unused in axes[count:]:
        unused.set_visible(False)
    return axes[:count]


def title_of(text: str, columns: int) -> str:
    """A panel's title, on several lines where one is too short: two points of a grid may differ anywhere in it."""
    width = min(60, 66 // columns)
    return "\n".join(wrap(label(text, MOST_LINES * width), width, break_on_hyphens=False))


def label(text: str, longest: int = MAX_LABEL) -> str:
    """Foreign text as a label: one line, too long ones without their middle.

    matplotlib would leave out one that begins with an underscore, so a hair space stands before it.
    """
    line = one_line(text)
    if len(line) > longest:
        line = f"{line[: longest // 2 - 1]}…{line[-(longest // 2) :]}"
    return f"\u200a{line}" if line.startswith("_") else line


def distinct(names: Sequence[str], longest: int = MAX_LABEL) -> list[str]:
    """A label for each name, too long ones without their middle; twice as long where that is what differs."""
    cut = [label(name, longest) for name in names]
    return [label(name, 2 * longest) if cut.count(short) > 1 else short for name, short in zip(names, cut, strict=True)]


def standalone(svg: str, alternative: str) -> str:
    """The drawing as a file of its own: fixed colours on white paper, and a title for readers who cannot see it."""
    for colour, variable in VARIABLES.items():
        svg = svg.replace(f"var(--{variable})", colour)
    paper = '<rect width="100%" height="100%" fill="#ffffff"/>'
    start = svg.index(">") + 1
    font = ' font-family="system-ui, Helvetica, Arial, sans-serif">'
    return f"{svg[: start - 1]}{font}<title>{_xml(alternative)}</title>{paper}{svg[start:]}\n"


def _slim(svg: str) -> str:
    """A drawing without what the page does not need: metadata, decimals, unused ids; colours as variables."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<[^>]*>", lambda tag: _slim_tag(tag.group()), svg)
    svg = re.sub(r">\s+<", "><", svg)
    svg = re.sub(r"<defs></defs>|<g></g>", "", svg)
    used = sorted(set(re.findall(r"#([A-Za-z]\w+)", svg)) - {colour[1:] for colour in VARIABLES})
    svg = re.sub(r' id="([^"]*)"', lambda found: found.group() if found.group(1) in used else "", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg.strip()


def _slim_tag(tag: str) -> str:
    if tag.startswith("<svg"):
        (box,) = re.findall(r'viewBox="[^"]*"', tag)
        width, height = (round(float(size)) for size in box.split('"')[1].split()[2:])
        return f'<svg xmlns="http://www.w3.org/2000/svg" {box} width="{width}" height="{height}">'
    tag = re.sub(r"-?\d+\.\d{2,}", lambda found: f"{float(found.group()):.1f}".removesuffix(".0"), tag)
    tag = re.sub(r'font-family: [^;"]*;? ?', "", tag.replace("xlink:href", "href"))
    tag = re.sub(r' transform="rotate\(-?0(?: [^)]*)?\)"', "", tag)
    return re.sub(r"\s+", " ", tag)


def _xml(text: str) -> str:
    return one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
