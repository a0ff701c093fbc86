"""Figures as small SVG texts. What they show is decided in `figures`; here they are only drawn.

Colours are the variables of the page (`theme`), so that one drawing suits light and dark; text stays text. Nothing is
set with pyplot, so that no global state is left behind.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

import numpy as np

from align_bench.report.formatting import one_line

Numbers = Sequence[float] | np.ndarray[Any, Any]

INK, MUTED, GRID = "#1c1e21", "#5f6368", "#d7dbe0"
# Okabe and Ito's palette without its yellow, which white paper swallows: told apart by colour-blind readers too.
HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("-", "--", ":", "-.")
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", **{hue: f"hue-{place}" for place, hue in enumerate(HUES)}}

WIDTH = 7.2  # inches
MAX_LABEL = 26  # characters of a label; a title has as many as its panel is wide
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "align-bench",
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
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


@dataclass(frozen=True, slots=True)
class Look:
    """How one cell or group is drawn in every figure."""

    hue: str
    dash: str = "-"


@dataclass(frozen=True, slots=True)
class Series:
    """One curve, histogram or set of points.

    Attributes:
        name: its entry in the legend; the same name in several panels is one entry.
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
        diagonal: draw y = x, and both axes from 0 to 1.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    level: float | None = None
    diagonal: bool = False


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


def looks(names: Sequence[str], *, plain: str | None = None) -> dict[str, Look]:
    """A look for each name, in order; that of `plain` (the base) is ink."""
    others = [name for name in names if name != plain]
    found = {
        name: Look(HUES[place % len(HUES)], DASHES[place // len(HUES) % len(DASHES)])
        for place, name in enumerate(others)
    }
    return found | ({plain: Look(INK)} if plain is not None else {})


def curves(panels: Sequence[Panel], *, columns: int = 3, height: float = 2.0) -> str:
    """Panels of curves, histograms and points under one legend.

    Args:
        panels: what to draw.
        columns: panels in a row.
        height: of a row, in inches.

    Returns:
        SVG text in the page's colours; see `standalone`.
    """
    columns = 2 if len(panels) == 4 else min(columns, len(panels))
    rows = ceil(len(panels) / columns)
    entries: dict[str, Any] = {}
    with _figure(rows * height + 0.35) as (figure, svg):
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        shared = len({panel.y_label for panel in panels}) == 1, len({panel.x_label for panel in panels}) == 1
        for place, (axes, panel) in enumerate(zip(grid, panels, strict=False)):
            _draw(axes, panel, entries)
            axes.set_title(_title(panel.title, columns))
            axes.set_ylabel("" if shared[0] and place % columns else panel.y_label)
            axes.set_xlabel("" if shared[1] and place < len(panels) - columns else panel.x_label)
        if len(entries) > 1:
            texts = [_label(name) for name in entries]
            per_row = max(1, min(len(texts), 90 // (max(map(len, texts)) + 6)))
            figure.legend(list(entries.values()), texts, loc="outside upper left", ncols=per_row, handlelength=1.6)
        return svg()


def forest(panels: Mapping[str, Mapping[str, Bar]]) -> str:
    """Differences with intervals around zero, a panel a metric and a row a name.

    Args:
        panels: metric → name → difference; every panel shows all names, in the order of their first appearance.

    Returns:
        SVG text in the page's colours.
    """
    names = list(dict.fromkeys(name for bars in panels.values() for name in bars))
    with _figure(0.95 + 0.24 * len(names)) as (figure, svg):
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True).ravel()
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
            axes.set_title(_title(metric, len(panels)))
            axes.set_xlabel("difference")
            axes.set_yticks(range(len(names)), [_label(name) for name in names])
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.locator_params(axis="x", nbins=5)
        return svg()


def heatmap(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    *,
    text: Callable[[float], str],
    middle: float,
    span: float,
    x_label: str = "",
    y_label: str = "",
) -> str:
    """A matrix of numbers, tinted by their distance from the middle: blue above, vermilion below.

    Args:
        rows, columns: their names.
        values: [rows][columns]; None is left blank.
        text: how a value is written into its field.
        middle: the value without tint.
        span: the distance from it at which the tint is full.
        x_label, y_label: what columns and rows are.

    Returns:
        SVG text in the page's colours.
    """
    height = 0.8 + 0.27 * len(rows) + 0.055 * max(map(len, map(_label, columns)))
    with _figure(height, width=min(WIDTH, 1.9 + 0.62 * len(columns))) as (figure, svg):
        axes = figure.subplots()
        axes.grid(visible=False)
        for y, line in enumerate(values):
            for x, value in enumerate(line):
                if value is None:
                    continue
                distance = (value - middle) / span
                tint = round(0.62 * min(1.0, abs(distance)), 2)
                axes.add_patch(_rectangle(x, y, HUES[0] if distance > 0 else HUES[1], tint))
                if len(columns) <= 14:
                    axes.text(x, y, text(value), ha="center", va="center", fontsize=8)
        axes.set_xticks(range(len(columns)), [_label(name) for name in columns], rotation=40, ha="right")
        for label in axes.get_xticklabels():
            label.set_rotation_mode("anchor")
        axes.set_yticks(range(len(rows)), [_label(name) for name in rows])
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return svg()


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
    rows = ceil(len(clouds) / columns)
    with _figure(2.1 * rows + 0.2) as (figure, svg):
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(clouds) :]:
            axes.set_visible(False)
        for place, (axes, cloud) in enumerate(zip(grid, clouds, strict=False)):
            cells = axes.hexbin(cloud.x, cloud.y, gridsize=(16, 10), mincnt=1, linewidths=0)
            counts = np.asarray(cells.get_array())
            tints = np.ceil(6 * np.sqrt(counts / counts.max())) / 6  # few tints keep the drawing small
            cells.set_array(None)
            cells.set_facecolor([(*_rgb(HUES[0]), 0.12 + 0.7 * tint) for tint in tints])
            cells.set_edgecolor("none")
            axes.plot(cloud.bin_x, cloud.bin_y, color=HUES[1], linewidth=1.8, marker="o", markersize=3.5)
            axes.set_title(_title(cloud.title, columns))
            axes.set_xlabel(x_label if place >= len(clouds) - columns else "")
            axes.set_ylabel(y_label if place % columns == 0 else "")
            axes.locator_params(nbins=5)
        return svg()


def bars(names: Sequence[str], panels: Mapping[str, Sequence[float | None]]) -> str:
    """Horizontal bars, a panel a quantity and a row a name; None is left out.

    Args:
        names: the rows.
        panels: label of the quantity → a value for each name.

    Returns:
        SVG text in the page's colours.
    """
    with _figure(0.7 + 0.22 * len(names)) as (figure, svg):
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True).ravel()
        for axes, (quantity, values) in zip(grid, panels.items(), strict=True):
            axes.grid(axis="y", visible=False)
            for place, value in enumerate(values):
                if value is not None:
                    axes.barh(place, value, height=0.62, color=HUES[0])
            axes.set_xlabel(quantity)
            axes.set_yticks(range(len(names)), [_label(name) for name in names])
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
    rows = ceil(len(lists) / columns)
    longest = max(map(len, lists.values()))
    with _figure(rows * (0.45 + 0.16 * longest)) as (figure, svg):
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(lists) :]:
            axes.set_visible(False)
        for axes, (title, words) in zip(grid, lists.items(), strict=False):
            axes.grid(visible=False)
            axes.barh(range(len(words)), [weight for _, weight in words], height=0.7, color=HUES[0])
            axes.set_yticks(range(len(words)), [_label(word, 18) for word, _ in words])
            axes.set_ylim(longest - 0.4, -0.6)
            axes.locator_params(axis="x", nbins=3)
            axes.set_title(_title(title, columns))
        return svg()


def standalone(svg: str, alternative: str) -> str:
    """The drawing as a file of its own: fixed colours on white paper, and a title for readers who cannot see it."""
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(f"var(--{variable})", colour)
    paper = '<rect width="100%" height="100%" fill="#ffffff"/>'
    start = svg.index(">") + 1
    font = ' font-family="system-ui, Helvetica, Arial, sans-serif">'
    return f"{svg[: start - 1]}{font}<title>{_xml(alternative)}</title>{paper}{svg[start:]}\n"


def _draw(axes: Any, panel: Panel, entries: dict[str, Any]) -> None:
    if panel.level is not None:
        axes.axhline(panel.level, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    if panel.diagonal:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
    for series in panel.series:
        hue, dash = series.look.hue, series.look.dash
        x, y = np.asarray(series.x, dtype=float), np.asarray(series.y, dtype=float)
        if series.mark == "bars":
            axes.stairs(y, x, fill=True, color=hue, alpha=0.25 if len(panel.series) > 1 else 0.7)
            continue
        if series.mark == "thin":
            axes.plot(x, y, color=hue, linewidth=0.6, alpha=0.35)
            continue
        if series.mark == "area":
            axes.fill_between(x, 0, y, color=hue, alpha=0.14, linewidth=0)
        if series.low is not None and series.high is not None:
            axes.vlines(x, series.low, series.high, color=hue, linewidth=1.1)
        marker = {"marker": "o", "markersize": 4.5} if series.mark == "points" or series.low is not None else {}
        style = "none" if series.mark == "points" else dash
        (line,) = axes.plot(x, y, color=hue, linestyle=style, **marker)
        if series.name:
            entries.setdefault(series.name, line)
    axes.locator_params(axis="x", nbins=5)
    axes.locator_params(axis="y", nbins=5)


@contextmanager
def _figure(height: float, width: float = WIDTH) -> Iterator[tuple[Any, Callable[[], str]]]:
    """A figure, and what makes an SVG text of it once it is drawn."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    def svg() -> str:
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return _slim(stream.getvalue())

    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the reader's browser has another
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, svg


def _slim(svg: str) -> str:
    """A drawing without what the page does not need: metadata, decimals, unused ids; colours as variables."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<[^>]*>", lambda tag: _slim_tag(tag.group()), svg)
    svg = re.sub(r">\s+<", "><", svg)
    svg = re.sub(r"<defs></defs>|<g></g>", "", svg)
    used = sorted(set(re.findall(r"#([A-Za-z]\w+)", svg)) - {colour[1:] for colour in _VARIABLES})
    svg = re.sub(r' id="([^"]*)"', lambda found: found.group() if found.group(1) in used else "", svg)
    for colour, variable in _VARIABLES.items():
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


def _rectangle(x: float, y: float, colour: str, tint: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=(*_rgb(colour), tint), edgecolor=GRID, linewidth=0.6)


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))


def _title(text: object, columns: int) -> str:
    """A panel's title, on two lines where one is too short: two points of a grid differ at their ends."""
    width = min(60, 66 // columns)
    line = _label(text, 2 * width)
    if len(line) <= width:
        return line
    place = max(line.rfind(mark, 1, width) for mark in "[, ")  # where a name has its joints
    if place < 1 or len(line) - place > width + 2:
        place = width
    return f"{line[:place]}\n{line[place:].strip()}"


def _label(text: object, longest: int = MAX_LABEL) -> str:
    """Foreign text as a label: one line, too long ones without their middle; one that begins with an underscore would
    be left out by matplotlib."""
    line = one_line(text)
    if len(line) > longest:
        line = f"{line[: longest // 2 - 1]}…{line[-(longest // 2) :]}"
    return f"\u200a{line}" if line.startswith("_") else line


def _xml(text: str) -> str:
    return one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
