"""The report as one page that needs nothing else: tables, figures and every example."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING

from align_bench.records import Estimate
from align_bench.report import provenance
from align_bench.report.formatting import one_line
from align_bench.report.labels import short_names
from align_bench.report.render.examples import Examples, examples_of
from align_bench.report.tables import report_sections
from align_bench.report.tables.values import Interval, Number, OfSeeds, Spread, Value
from align_bench.report.verdict import headline

if TYPE_CHECKING:
    from jinja2 import Environment

    from align_bench.records import CellId, Json
    from align_bench.report.cells import Cell
    from align_bench.report.figures.base import Figure
    from align_bench.report.schema import Report
    from align_bench.report.tables.section import Section

CHAPTERS = {
    "verdict": "Verdict",
    "results": "Results",
    "differences": "Differences",
    "training": "Training",
    "scores": "Scores",
    "length": "Length",
    "audit": "Audit",
    "drift": "Drift",
    "keywords": "Keywords",
    "data": "Data",
    "cost": "Cost",
    "more": "More",
    "examples": "Examples",
    "made": "How it was made",
}
# What the summary has room for on one sheet of A4 paper.
MAX_POINTS, MAX_ROWS, MAX_CAPTIONS = 6, 12, 3
FIRST_FIGURES = ("prompt-differences", "differences", "frontier", "win-rates", "accuracy-by-length", "losses")


@dataclass(frozen=True, slots=True)
class Content:
    """What a page shows of a report.

    Attributes:
        title: its heading.
        points: sentences of the verdict.
        behind: those with the numbers behind it.
        tables, figures: each in its chapter.
        remarks: notes below the verdict.
        against: the two cells that the browser of examples holds against each other first.
        gold: prompt → its right answer, where it is known.
        opened: the chapters that are not folded at first.
    """

    title: str
    points: Sequence[str]
    tables: Sequence[Section]
    figures: Sequence[Figure]
    remarks: Sequence[str] = ()
    against: tuple[CellId, CellId] | None = None
    behind: Sequence[str] = ()
    gold: Mapping[int, str] = field(default_factory=dict)
    opened: Sequence[str] = ("verdict",)  # with the leaderboard


@dataclass(frozen=True, slots=True)
class Chapter:
    """One part of the page, under one of the titles of `CHAPTERS`; an empty one is left out."""

    name: str
    points: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Section] = ()
    examples: Examples | None = None
    behind: Sequence[str] = ()
    remarks: Sequence[str] = ()
    listings: Sequence[tuple[str, str]] = ()

    @property
    def title(self) -> str:
        """Its heading."""
        return CHAPTERS[self.name]

    @property
    def contents(self) -> str:
        """How much is in it, for who sees it folded: `2 figures, 1 table`."""
        counts = (("figure", len(self.figures)), ("table", len(self.tables)))
        return ", ".join(f"{count} {what}{'' if count == 1 else 's'}" for what, count in counts if count)

    def __bool__(self) -> bool:
        return any((self.points, self.figures, self.tables, self.examples, self.behind, self.remarks, self.listings))


@dataclass(frozen=True, slots=True)
class Summary:
    """What fits one screen, and one sheet of paper.

    Attributes:
        points: sentences of the verdict.
        table: the leaderboard without what there is no room for; None where the report has no table.
        figures: at most two.
        made: three lines: base, data, software and machine.
    """

    points: Sequence[str]
    table: Section | None
    figures: Sequence[Figure]
    made: Sequence[str]


def render_page(
    report: Report, cells: Sequence[Cell], figures: Sequence[Figure], gold: Mapping[int, str] | None = None
) -> str:
    """`report.html`, of the whole report.

    Args:
        report: the report.
        cells: every cell with its rows.
        figures: what `figures` draws of them.
        gold: prompt → its right answer, where it is known.
    """
    content = Content(
        title=one_line(report.suite.name),
        points=[one_line(sentence) for sentence in headline(report)],
        behind=[one_line(sentence) for sentence in report.verdict],
        tables=report_sections(report),
        figures=figures,
        remarks=[one_line(note) for note in report.notes],
        gold=gold or {},
    )
    return page(content, report, cells)


def page(content: Content, report: Report, cells: Sequence[Cell]) -> str:
    """One file that asks the network for nothing.

    Every foreign text goes through Jinja's escaping, or as JSON without `<` into a block that no browser runs; the
    page's policy of content allows its own script alone.

    Args:
        content: what it shows.
        report: how that was made.
        cells: the cells whose answers are its examples.
    """
    script = _source("page.js")
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=content.title,
            compared=one_line(provenance.compared(report)),
            made=report.made,
            command=one_line(report.command),
            version=one_line(report.environment.align_bench),
            names=_names(report),
            summary=_summary(content, report),
            chapters=_chapters(content, report, cells),
            opened=content.opened,
            style=_source("page.css"),
            script=script,
            script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def _names(report: Report) -> dict[str, str]:
    """What tables and lists call a cell → its short name."""
    return {one_line(cell): one_line(label) for cell, label in short_names(one.cell for one in report.results).items()}


def _summary(content: Content, report: Report) -> Summary:
    of_chapter = {figure.name: figure for figure in content.figures}
    return Summary(
        points=content.points[:MAX_POINTS],
        table=_narrow(content.tables[0]) if content.tables else None,
        figures=[of_chapter[name] for name in FIRST_FIGURES if name in of_chapter][:2],
        made=[one_line(line) for line in provenance.in_three_lines(report)],
    )


def _narrow(section: Section) -> Section:
    """The first rows of a table, without its optional columns, and the captions without which it cannot be read."""
    kept = [place for place, column in enumerate(section.columns) if not column.optional]
    left = len(section.rows) - MAX_ROWS
    return replace(
        section,
        columns=[section.columns[place] for place in kept],
        rows=[[row[place] for place in kept] for row in section.rows[:MAX_ROWS]],
        captions=[
            *section.captions[:MAX_CAPTIONS],
            *([f"{left} more rows are in the whole report."] if left > 0 else []),
        ],
    )


def _chapters(content: Content, report: Report, cells: Sequence[Cell]) -> list[Chapter]:
    own = {
        "verdict": Chapter("verdict", points=content.points, behind=content.behind, remarks=content.remarks),
        "examples": Chapter(
            "examples", examples=examples_of(cells, content.against, report.policies.judge, content.gold)
        ),
        "made": Chapter("made", listings=list(_listings(report))),
    }
    chapters = (
        replace(
            own.get(name, Chapter(name)),
            figures=[figure for figure in content.figures if figure.chapter == name],
            tables=[table for table in content.tables if table.chapter == name],
        )
        for name in CHAPTERS
    )
    return [chapter for chapter in chapters if chapter]


def embedded(value: Json) -> str:
    """JSON that stands safely inside a `script` element: no `<`, `>` or `&`, no lone surrogate; few digits.

    >>> embedded({"a": ["</script>", 0.123456789, float("nan")]})
    '{"a":["\\\\u003c/script\\\\u003e",0.12346,null]}'
    """
    text = json.dumps(_short(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return re.sub("[<>&\u2028\u2029\ud800-\udfff]", lambda found: f"\\u{ord(found.group()):04x}", text)


def _short(value: Json) -> Json:
    """Numbers to five significant digits, which is more than a figure shows; None for what is not finite."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {key: _short(item) for key, item in value.items()}
    return [_short(item) for item in value]


def inline(figure: Figure, prefix: str = "") -> str:
    """The figure's drawing with its alternative text, and ids that no other figure has.

    Args:
        figure: the figure.
        prefix: of its ids, where the page shows it more than once.
    """
    from markupsafe import escape

    ids = set(re.findall(r' id="([^"]*)"', figure.svg))
    svg = figure.svg
    for one in ids:
        svg = svg.replace(f'id="{one}"', f'id="{prefix}{figure.name}-{one}"').replace(
            f"#{one}", f"#{prefix}{figure.name}-{one}"
        )
    (width,) = re.findall(r'^<svg [^>]* width="(\d+)"', svg)
    words = escape(one_line(figure.alternative))
    return svg.replace("<svg ", f'<svg role="img" aria-label="{words}" style="--width: {width}px" ', 1)


def called(value: Value, names: Mapping[str, str]) -> str:
    """A table's value as the page shows it: a cell by its short name, also in `a − b`.

    >>> called("ppo[kl_coef=0.02] − base", {"ppo[kl_coef=0.02]": "ppo kl 0.02"})
    'ppo kl 0.02 − base'
    """
    return names.get(str(value)) or " − ".join(names.get(part, part) for part in str(value).split(" − "))


def sort_key(value: Value) -> str | None:
    """The number by which a table's rows are sorted; empty where it is undefined, None for text."""
    match value:
        case Number(number) | Spread(Estimate(number)) | OfSeeds(number) | Interval(number):
            return "" if number is None else repr(float(number))
    return None


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("align_bench.report", "page"), autoescape=True, undefined=StrictUndefined
    )
    # The text of both is escaped where it is made.
    environment.filters["inline"] = lambda figure, prefix="": Markup(inline(figure, prefix))  # nosec B704
    environment.filters["embedded"] = lambda value: Markup(embedded(value))  # nosec B704
    environment.filters["sort_key"] = sort_key
    environment.filters["called"] = called
    return environment


def _source(name: str) -> str:
    loader = _environment().loader
    assert loader is not None
    return loader.get_source(_environment(), name)[0]


def _listings(report: Report) -> Iterator[tuple[str, str]]:
    """The command, what went in with its hashes, the versions, and the settings."""
    yield "Command", one_line(report.command)
    yield "Base, data and judges", _lines(provenance.inputs(report))
    if report.results:
        yield "Cells", "\n".join(_cells(report))
    yield "Environment", _lines(provenance.environment(report))
    yield "Settings", json.dumps(report.suite.settings, indent=1, ensure_ascii=False)


def _lines(lines: Sequence[provenance.Line]) -> str:
    return "\n".join(one_line(f"{name}: {text}") for name, text in lines)


def _cells(report: Report) -> Iterator[str]:
    for result in report.results:
        parameters = ", ".join(f"{name}={value}" for name, value in result.parameters.items())
        reward = f"; reward {result.reward}" if result.reward else ""
        yield one_line(f"{result.name}: seed {result.seed}{'; ' if parameters else ''}{parameters}{reward}")
