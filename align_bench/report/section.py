"""Parts that tables are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from align_bench.report.decision import ALPHA, decide
from align_bench.report.formatting import interval, number, one_line, p_value

Report = Mapping[str, Any]
Result = Mapping[str, Any]
VERDICT = (
    f"Verdict: Holm-adjusted p below {ALPHA:.0%}; equivalent: Holm-adjusted TOST below {ALPHA:.0%}; between methods, "
    "the bootstrap must exclude 0, or lie within the margin, as well. The interval beside McNemar's test is that of a "
    "paired t."
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading, whether it holds numbers (set flush right), and whether its cells may break into lines."""

    heading: str
    numeric: bool = True
    wraps: bool = False


def text(heading: str, *, wraps: bool = True) -> Column:
    """A column of words."""
    return Column(heading, numeric=False, wraps=wraps)


@dataclass(frozen=True, slots=True)
class Section:
    """One table: all text is literal, and for the renderer to escape.

    Attributes:
        title: what it is about.
        columns: its columns.
        rows: its cells, row by row.
        captions: what a reader needs beside the numbers.
        chapter: where in the page it stands.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    captions: Sequence[str] = field(default=())
    chapter: str = "more"


def metric_section(
    title: str,
    first: str,
    results: Sequence[Result],
    shown: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], str]]],
    captions: Sequence[str],
    *,
    chapter: str,
) -> Section:
    """A row a result; columns that are undefined in every row are left out, and so is a table of no others."""
    kept = {
        heading: (name, render)
        for heading, (name, render) in shown.items()
        if any(metric(found, name)["value"] is not None for found in results)
    }
    rows = [
        (one_line(found["cell"]), *(render(metric(found, name)) for name, render in kept.values()))
        for found in results
        if kept
    ]
    columns = [text(first), *(Column(one_line(heading)) for heading in kept)]
    return Section(title, columns, rows, captions, chapter)


def both(comparison: Mapping[str, Any]) -> list[str]:
    """Between whom a comparison is, in one cell."""
    return [f"{comparison['a']} − {comparison['b']}"]


def comparison_section(
    title: str,
    found: Sequence[Mapping[str, Any]],
    captions: Sequence[str],
    who_columns: Sequence[Column],
    who: Callable[[Mapping[str, Any]], Sequence[str]],
    *,
    chapter: str,
) -> Section:
    """A row a comparison; `who` gives the cells that say between whom. Columns without any value may be left out."""
    shown: list[tuple[Column, Callable[[Mapping[str, Any]], str], str | None]] = [
        (text("metric"), lambda one: one_line(one["metric"]), None),
        (Column("diff"), lambda one: number(one["difference"], signed=True), None),
        (Column("95% interval"), lambda one: interval(one["low"], one["high"]), None),
        (
            Column("bootstrap interval"),
            lambda one: interval(one["bootstrap_low"], one["bootstrap_high"]),
            "bootstrap_low",
        ),
        (text("test"), lambda one: one_line(one["test"]), None),
        (Column("p"), lambda one: p_value(one["p"]), None),
        (Column("Holm p"), lambda one: p_value(one["p_holm"]), None),
        (Column("Wilcoxon p"), lambda one: p_value(one["p_wilcoxon"]), "p_wilcoxon"),
        (Column("TOST Holm p"), lambda one: p_value(one["p_tost_holm"]), "p_tost_holm"),
        (Column("dz"), lambda one: number(one["effect"], signed=True), None),
        (Column("n"), lambda one: str(one["n"]), None),
        (text("verdict"), verdict, None),
    ]
    kept = [
        (column, render) for column, render, key in shown if key is None or any(one[key] is not None for one in found)
    ]
    columns = [*who_columns, *(column for column, _ in kept)]
    rows = [(*map(one_line, who(one)), *(render(one) for _, render in kept)) for one in found]
    return Section(title, columns, rows, [*captions, VERDICT], chapter)


def done_results(report: Report, *kinds: str) -> list[Result]:
    """The results of these kinds that are done, kind by kind."""
    return [
        found for kind in kinds for found in report["results"] if found["kind"] == kind and found["status"] == "done"
    ]


def metric(result: Result, name: str) -> Mapping[str, Any]:
    """A result's metric, undefined where it has none of that name."""
    found: Mapping[str, Any] = result["metrics"].get(name) or {"value": None, "low": None, "high": None, "n": 0}
    return found


def metric_names(results: Sequence[Result]) -> list[str]:
    """The names of all metrics of these results."""
    return list(dict.fromkeys(name for found in results for name in found["metrics"]))


def detectable(report: Report, *sizes: str) -> list[str]:
    """A caption each: the smallest effect that this many pairs, prompts or seeds could have shown."""
    return [_detectable(what, report["detectable"][what]) for what in sizes if what in report["detectable"]]


def verdict(found: Mapping[str, Any]) -> str:
    """A comparison in words: who is higher, that both are equivalent, or that neither was shown."""
    decision = decide(found)
    if decision in ("higher", "lower"):
        return f"{one_line(found['a' if decision == 'higher' else 'b'])} higher"
    return {"equivalent": "equivalent", "none": "none shown", "undefined": "undefined"}[decision]


def _detectable(what: str, size: Mapping[str, Any]) -> str:
    tests = f"at Holm's first step ({size['tests']} tests)"
    if what == "seeds":
        return (
            f"n = {size['n']} seeds; smallest detectable difference {number(size['d'])} × the standard deviation over "
            f"seeds (80% power), {number(size['d_holm'])} {tests}."
        )
    of = "" if size["prompts"] == size["n"] else f" of {size['prompts']} prompts"
    return (
        f"n = {size['n']} {what}{of}; smallest detectable dz {number(size['dz'])} (80% power), "
        f"{number(size['dz_holm'])} {tests}."
    )
