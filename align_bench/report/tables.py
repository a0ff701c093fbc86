"""The report as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Group, JustifyMethod, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from align_bench.report.numerals import one_line
from align_bench.report.section import Section
from align_bench.report.sections import pairwise, sections

# What the terminal has no room for; the Markdown report shows it.
HIDDEN_IN_PAIRS = {"n", "bootstrap interval", "Wilcoxon p"}
HIDDEN = {*HIDDEN_IN_PAIRS, "test", "dz", "answer tokens", "TOST Holm p"}
# A column of text is not squeezed below this, however narrow the terminal.
TEXT_WIDTH = 10


def comparison_tables(report: Mapping[str, Any]) -> list[RenderableType]:
    """The verdict, the tables of a report and its notes, ready for `Console.print`.

    All text is set as `rich.text.Text`, which knows no markup: what stands in a suite or an answer stays literal.

    Args:
        report: what `build_report` returns or `report.json` holds.
    """
    made: list[RenderableType] = [_bullets("Verdict", report["verdict"]), Text()] if report.get("verdict") else []
    made += [_table(section, hidden=HIDDEN) for section in sections(report)]
    if report["notes"]:
        made.append(_bullets("Notes", report["notes"]))
    return made


def pairwise_table(report: Mapping[str, Any], a: str, b: str) -> RenderableType:
    """Two methods against each other on every metric they were compared on, as `a − b`.

    Args:
        report: what `build_report` returns or `report.json` holds.
        a, b: names of methods or cells.

    Raises:
        MissingResultError: no such method or cell, or it has no result.
    """
    return _table(pairwise(report, a, b), hidden=HIDDEN_IN_PAIRS)


def _table(section: Section, *, hidden: set[str]) -> RenderableType:
    shown = [index for index, column in enumerate(section.columns) if column.heading not in hidden]
    title = Text(section.title, style="bold")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for index in shown:
        column = section.columns[index]
        heading = Text(column.heading.replace(" ", "\n") if column.numeric else column.heading)
        side: JustifyMethod = "right" if column.numeric else "left"
        longest = max((len(row[index]) for row in section.rows), default=0)
        least = min(TEXT_WIDTH, longest) if column.wraps else None
        table.add_column(
            heading, justify=side, vertical="top", overflow="fold", no_wrap=not column.wraps, min_width=least
        )
    for row in section.rows:
        table.add_row(*(Text(row[index]) for index in shown))
    captions = [Text(one_line(caption), style="dim") for caption in section.captions]
    return Group(table, *captions, Text())


def _bullets(title: str, sentences: list[str]) -> RenderableType:
    bullets = [Padding(Text(f"• {one_line(sentence)}"), (0, 0, 0, 1)) for sentence in sentences]
    return Group(Text(title, style="bold"), *bullets)
