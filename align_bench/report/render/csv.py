"""The report as CSV: every table as it is shown, and every number in full.

A cell that a spreadsheet would take for a formula has an apostrophe before it (OWASP, "CSV Injection"); numbers stay
numbers.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from align_bench.records import Comparison, Estimate
from align_bench.report.files import write_text
from align_bench.report.formatting import clipped, number, one_line, signed
from align_bench.report.tables import report_sections
from align_bench.report.tables.section import Section
from align_bench.report.tables.values import Interval, OfSeeds, Spread, Value
from align_bench.report.verdict import verdict

if TYPE_CHECKING:
    from align_bench.report.schema import Metrics, Report

FOLDER = "tables"
METRICS, COMPARISONS = "metrics", "comparisons"
METRIC_COLUMNS = ("cell", "algorithm", "kind", "seed", "status", "metric", "value", "low", "high", "n")
COMPARISON_COLUMNS = tuple(field.name for field in fields(Comparison))


def write_tables(folder: Path, report: Report) -> None:
    """Write `tables/*.csv`: `metrics.csv` and `comparisons.csv` with all digits, and a file for each table shown.

    Files of an earlier report that this one does not have are removed.
    """
    made = {METRICS: metrics_csv(report), COMPARISONS: comparisons_csv(report.comparisons)}
    for section in report_sections(report):
        made[_free_name(section.title, made)] = section_csv(section)
    (folder / FOLDER).mkdir(exist_ok=True)
    for name, text in made.items():
        write_text(folder / FOLDER / f"{name}.csv", text)
    for path in (folder / FOLDER).glob("*.csv"):
        if path.stem not in made:
            path.unlink()


def metrics_csv(report: Report) -> str:
    """The rows of `metric_rows` as CSV, all digits; undefined is empty."""
    return _csv(METRIC_COLUMNS, metric_rows(report))


def metric_rows(report: Report) -> list[list[str | float | None]]:
    """A row per cell and metric, of `METRIC_COLUMNS`. A cell without a result has one row, without a metric.

    A metric by one of several judges, reward models or attacks is `metric[which]`.
    """
    rows: list[list[str | float | None]] = []
    for result in report.results:
        who: list[str | float | None] = [result.name, result.algorithm, result.kind, result.seed, result.status]
        known = [(name, found) for name, found in _named(result.metrics) if found.value is not None]
        rows += [[*who, name, found.value, found.low, found.high, found.n] for name, found in known]
        if not known:
            rows.append([*who, None, None, None, None, None])
    return rows


def comparisons_csv(comparisons: Iterable[Comparison]) -> str:
    """A row per comparison, all digits, with its verdict; undefined is empty."""
    rows = [[*(getattr(one, name) for name in COMPARISON_COLUMNS), verdict(one)] for one in comparisons]
    return _csv([*COMPARISON_COLUMNS, "verdict"], rows)


def section_csv(section: Section) -> str:
    """A table as it is shown; an interval has columns of its own, `x low` and `x high`, after that of an estimate."""
    columns: list[tuple[str, Sequence[str]]] = []
    for place, column in enumerate(section.columns):
        columns += _parts(column.heading, [row[place] for row in section.rows])
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


def _named(metrics: Metrics) -> Iterator[tuple[str, Estimate]]:
    """Every metric by its name."""
    for name, value in metrics:
        if isinstance(value, Estimate):
            yield name, value
        elif name == "attacked":
            yield from ((f"accuracy_attacked[{found.epsilon:g}]", found.accuracy) for found in metrics.attacked)
        elif name == "other_judges":
            for reward in metrics.other_judges:
                yield f"judge_reward_mean[{reward.judge}]", reward.mean
                yield f"judge_reward_std[{reward.judge}]", reward.std
        elif name == "proxies":
            yield from ((f"proxy_reward_mean[{found.reward}]", found.mean) for found in metrics.proxies)


def _parts(heading: str, cells: Sequence[Value]) -> list[tuple[str, Sequence[str]]]:
    """A column's headings and texts; several columns where any cell has an interval, or a spread over seeds."""
    kinds = (
        (("", " low", " high"), Spread),
        (("", " sd"), OfSeeds),
        ((" low", " high"), Interval),
    )
    for suffixes, kind in kinds:
        bounded = [_with_bounds(cell) if isinstance(cell, kind) else None for cell in cells]
        if any(bounded):
            empty = [""] * (len(suffixes) - 1)
            rows = [[str(cell), *empty] if texts is None else texts for cell, texts in zip(cells, bounded, strict=True)]
            return [(f"{heading}{suffix}", [row[place] for row in rows]) for place, suffix in enumerate(suffixes)]
    return [(heading, list(map(str, cells)))]


def _with_bounds(cell: Spread | OfSeeds | Interval) -> list[str] | None:
    """The texts of an estimate and what stands around it, or of the bounds alone; None where there are none."""
    if isinstance(cell, Interval):
        return None if cell.low is None or cell.high is None else [signed(cell.low), signed(cell.high)]
    if isinstance(cell, OfSeeds):
        return None if cell.mean is None or cell.sd is None else [number(cell.mean), number(cell.sd)]
    found = cell.estimate
    if found.value is None or found.low is None or found.high is None:
        return None
    return [number(found.value), number(found.low), number(found.high)]


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
