"""The report as CSV: every table as it is shown, and every number in full.

A cell that a spreadsheet would take for a formula has an apostrophe before it (OWASP, "CSV Injection"); numbers stay
numbers.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from align_bench.records import Comparison
from align_bench.report.files import write_text
from align_bench.report.formatting import clipped, one_line
from align_bench.report.report_sections import report_sections
from align_bench.report.section import Section, verdict

FOLDER = "tables"
METRICS, COMPARISONS = "metrics", "comparisons"
METRIC_COLUMNS = ("cell", "algorithm", "kind", "seed", "status", "metric", "value", "low", "high", "n")
COMPARISON_COLUMNS = (*(field.name for field in fields(Comparison)), "verdict")
_SPREAD = re.compile(r"(\S+) ±(\S+)")
_INTERVAL = re.compile(r"\[(\S+), (\S+)\]")


def write_tables(folder: Path, report: Mapping[str, Any]) -> None:
    """Write `tables/*.csv`: `metrics.csv` and `comparisons.csv` with all digits, and a file for each table shown.

    Files of an earlier report that this one does not have are removed.
    """
    made = {METRICS: metrics_csv(report), COMPARISONS: comparisons_csv(report["comparisons"])}
    for section in report_sections(report):
        made[_free_name(section.title, made)] = section_csv(section)
    (folder / FOLDER).mkdir(exist_ok=True)
    for name, text in made.items():
        write_text(folder / FOLDER / f"{name}.csv", text)
    for path in (folder / FOLDER).glob("*.csv"):
        if path.stem not in made:
            path.unlink()


def metrics_csv(report: Mapping[str, Any]) -> str:
    """A row a cell and metric, all digits; undefined is empty. A cell without a result has one row without a metric."""
    rows = []
    for result in report["results"]:
        who = [result[name] for name in ("cell", "algorithm", "kind", "seed", "status")]
        known = {name: found for name, found in result["metrics"].items() if found["value"] is not None}
        rows += [[*who, name, *(found[key] for key in ("value", "low", "high", "n"))] for name, found in known.items()]
        if not known:
            rows.append([*who, None, None, None, None, None])
    return _csv(METRIC_COLUMNS, rows)


def comparisons_csv(comparisons: Iterable[Mapping[str, Any]]) -> str:
    """A row a comparison, all digits, with its verdict; undefined is empty."""
    rows = [[*(one[name] for name in COMPARISON_COLUMNS[:-1]), verdict(one)] for one in comparisons]
    return _csv(COMPARISON_COLUMNS, rows)


def section_csv(section: Section) -> str:
    """A table as it is shown; a column with a spread or an interval becomes two."""
    columns: list[tuple[str, list[str]]] = []
    for place, column in enumerate(section.columns):
        cells = [row[place] for row in section.rows]
        columns += _split(column.heading, cells) if column.numeric else [(column.heading, cells)]
    return _csv([heading for heading, _ in columns], zip(*(cells for _, cells in columns), strict=True))


def inert(value: object) -> str:
    """A cell that no spreadsheet computes: on one line, and after an apostrophe where it starts like a formula.

    >>> inert("=1+1"), inert("-0.5"), inert("-1+cmd"), inert(None)
    ("'=1+1", '-0.5', "'-1+cmd", '')
    """
    text = "" if value is None else clipped(one_line(value))
    return (
        f"'{text}" if text.startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠")) and not _is_number(text) else text
    )


def _split(heading: str, cells: Sequence[str]) -> list[tuple[str, list[str]]]:
    for pattern, (first, second) in ((_SPREAD, ("", " ±")), (_INTERVAL, (" low", " high"))):
        found = [pattern.fullmatch(cell) for cell in cells]
        if any(found):
            left = [one[1] if one else cell for one, cell in zip(found, cells, strict=True)]
            right = [one[2] if one else "" for one in found]
            return [(f"{heading}{first}", left), (f"{heading}{second}", right)]
    return [(heading, list(cells))]


def _csv(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(inert, headings))
    writer.writerows(list(map(inert, row)) for row in rows)
    return text.getvalue()


def _free_name(title: str, taken: Mapping[str, str]) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:80] or "table"
    return name if name not in taken else _free_name(f"{name} {len(taken)}", taken)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?%?", text) is not None
