"""A report as text for a pipe: JSON, CSV or Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from align_bench.records import Json
    from align_bench.report.schema import Report
    from align_bench.report.tables.section import Section
    from align_bench.report.tables.values import Value


class Format(StrEnum):
    """What a command prints: tables for the terminal, or one of the texts for a pipe."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MD = "md"


def report_text(report: Report, form: Format) -> str:
    """The whole report; as CSV a row per cell and metric with all digits.

    Args:
        report: a report.
        form: any format but `table`.
    """
    from align_bench.report.render.csv import metrics_csv
    from align_bench.report.render.markdown import render

    if form is Format.JSON:
        return inert_json(report.model_dump_json(indent=1))
    return metrics_csv(report) if form is Format.CSV else render(report)


def pairwise_text(report: Report, pairs: Sequence[tuple[str, str]], form: Format) -> str:
    """Methods against each other, as `a − b`; as JSON and CSV a comparison each, with all digits.

    Args:
        report: a report.
        pairs: names of methods or cells, a and b.
        form: any format but `table`.

    Raises:
        MissingResultError: no such method or cell, or it has no result.
    """
    from pydantic import TypeAdapter

    from align_bench.records import Comparison
    from align_bench.report.render.csv import comparisons_csv
    from align_bench.report.render.markdown import table
    from align_bench.report.tables.pairwise import compared, pairwise

    if form is Format.MD:
        return "\n\n".join(table(pairwise(report, a, b)) for a, b in pairs) + "\n"
    found = [one for a, b in pairs for one in compared(report, a, b)]
    if form is Format.CSV:
        return comparisons_csv(found)
    return inert_json(TypeAdapter(list[Comparison]).dump_json(found, indent=1).decode())


def section_text(section: Section, form: Format) -> str:
    """One table; as JSON an object per row, in which numbers are numbers, and undefined is null.

    Args:
        section: what it shows.
        form: any format but `table`.
    """
    from align_bench.report.render.csv import section_csv
    from align_bench.report.render.markdown import table

    if form is Format.JSON:
        headings = [column.heading for column in section.columns]
        rows = [dict(zip(headings, map(_json, row), strict=True)) for row in section.rows]
        return inert_json(json.dumps(rows, indent=1, ensure_ascii=False))
    return section_csv(section) if form is Format.CSV else table(section) + "\n"


def inert_json(text: str) -> str:
    """JSON of which no terminal takes a part for a command: control characters and lone surrogates are escaped."""
    shown = (letter if letter.isprintable() or letter == "\n" else json.dumps(letter)[1:-1] for letter in text)
    return "".join(shown) + "\n"


def _json(value: Value) -> Json:
    from align_bench.report.tables.values import Number

    return value.value if isinstance(value, Number) else str(value)
