"""A report as text for a pipe: JSON, CSV or Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align_bench.report.section import Section


class Format(StrEnum):
    """What a command prints: tables for the terminal, or one of the texts for a pipe."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MD = "md"


def report_text(report: Mapping[str, Any], form: Format) -> str:
    """The whole report; as CSV a row per cell and metric with all digits.

    Args:
        report: what `build_report` returns or `report.json` holds.
        form: any format but `table`.
    """
    from align_bench.report.csv_tables import metrics_csv
    from align_bench.report.markdown import render

    return json_text(report) if form is Format.JSON else metrics_csv(report) if form is Format.CSV else render(report)


def pairwise_text(report: Mapping[str, Any], pairs: Sequence[tuple[str, str]], form: Format) -> str:
    """Methods against each other, as `a − b`; as JSON and CSV a comparison each, with all digits.

    Args:
        report: what `build_report` returns or `report.json` holds.
        pairs: names of methods or cells, a and b.
        form: any format but `table`.

    Raises:
        MissingResultError: no such method or cell, or it has no result.
    """
    from align_bench.report.csv_tables import comparisons_csv
    from align_bench.report.markdown import table
    from align_bench.report.report_sections import compared, pairwise

    if form is Format.MD:
        return "\n\n".join(table(pairwise(report, a, b)) for a, b in pairs) + "\n"
    found = [one for a, b in pairs for one in compared(report, a, b)]
    return json_text(found) if form is Format.JSON else comparisons_csv(found)


def section_text(section: Section, form: Format) -> str:
    """One table; as JSON an object per row.

    Args:
        section: what it shows.
        form: any format but `table`.
    """
    from align_bench.report.csv_tables import section_csv
    from align_bench.report.markdown import table

    if form is Format.JSON:
        headings = [column.heading for column in section.columns]
        return json_text([dict(zip(headings, row, strict=True)) for row in section.rows])
    return section_csv(section) if form is Format.CSV else table(section) + "\n"


def json_text(value: Any) -> str:
    """JSON of which no terminal takes a part for a command: control characters and lone surrogates are escaped."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return (
        "".join(letter if letter.isprintable() or letter == "\n" else json.dumps(letter)[1:-1] for letter in text)
        + "\n"
    )
