"""Parts that tables are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from align_bench.report.decision import ALPHA
from align_bench.report.formatting import one_line
from align_bench.report.tables.values import Interval, Spread, Value, count, difference, p_value
from align_bench.report.verdict import verdict

if TYPE_CHECKING:
    from align_bench.records import Comparison, Estimate, Kind
    from align_bench.report.schema import DetectableEffect, Metrics, Report, Result

Measured = TypeVar("Measured")  # what holds the metrics of a row
BOOTSTRAP = (
    "bootstrap interval: BCa over prompts, 95%, to set beside that of the test; nothing is decided by it, and for 100 "
    "prompts of scores with heavy tails it covers less (91% in benchmarks/false_claims.py)."
)
VERDICT = (
    f"Verdict: Holm-adjusted p below {ALPHA:.0%}; equivalent: Holm-adjusted TOST below {ALPHA:.0%}; inconclusive: "
    "neither. The 95% interval is not adjusted for the number of tests; Holm's p is, over the tests of one metric "
    "between checkpoints, and over all between methods."
)

UNADJUSTED = "95% intervals, each on its own, not adjusted for their number: ±, or -x/+y where the sides differ."


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        heading: its heading.
        numeric: whether it holds numbers, which are set flush right.
        wraps: whether its cells may break into lines.
        optional: whether the summary on one sheet leaves it out.
    """

    heading: str
    numeric: bool = True
    wraps: bool = False
    optional: bool = False


def text(heading: str, *, wraps: bool = True, optional: bool = False) -> Column:
    """A column of words."""
    return Column(heading, numeric=False, wraps=wraps, optional=optional)


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
    rows: Sequence[Sequence[Value]]
    captions: Sequence[str] = field(default=())
    chapter: str = "more"

    def texts(self) -> list[tuple[str, ...]]:
        """The rows as they are shown."""
        return [tuple(map(str, row)) for row in self.rows]


@dataclass(frozen=True, slots=True)
class MetricColumn(Generic[Measured]):
    """A column that shows one metric.

    Attributes:
        heading: its heading.
        metric: gives the metric of a row.
        shown: how it is shown.
        optional: as of a `Column`.
        counted: what its estimates' `n` counts, where that is not what the table's rows are measured on.
    """

    heading: str
    metric: Callable[[Measured], Estimate]
    shown: Callable[[Estimate], Value]
    optional: bool = False
    counted: str = ""


def metric_section(
    title: str,
    first: str,
    rows: Iterable[tuple[str, Measured]],
    columns: Sequence[MetricColumn[Measured]],
    captions: Sequence[str],
    *,
    chapter: str,
    n: int | None = None,
) -> Section:
    """A row per name with its metrics; columns without any value are left out, and so is a table without columns.

    Captions are added that say the columns' `n`, where the table's is another, and that intervals are not adjusted.

    Args:
        title, captions, chapter: as of the `Section`.
        first: heading of the names.
        rows: name and metrics of each row.
        columns: the columns after the names.
        n: the table's `n`, where `captions` say it.
    """
    named = list(rows)
    found = [(column, [column.metric(own) for _, own in named]) for column in columns]
    kept = [(column, own) for column, own in found if any(each.value is not None for each in own)]
    shown = [[column.shown(each) for each in own] for column, own in kept]
    cells = [(one_line(name), *values) for (name, _), values in zip(named, zip(*shown, strict=True), strict=False)]
    headings = [Column(one_line(column.heading), optional=column.optional) for column, _ in kept]
    said = [*captions, *sizes(((column.heading, column.counted, own) for column, own in kept), n)]
    if any(isinstance(value, Spread) and value.estimate.low is not None for values in shown for value in values):
        said.append(UNADJUSTED)
    return Section(title, [text(first), *headings], cells, said, chapter)


def sizes(columns: Iterable[tuple[str, str, Iterable[Estimate]]], n: int | None = None) -> list[str]:
    """A caption with the `n` of the columns that rest on another one than the table.

    Args:
        columns: each one's heading, what its `n` counts (empty: the same as the table's), and its estimates.
        n: the table's `n`, where other captions say it; by default the most frequent one, which this caption says.
    """
    own = [
        (heading, counted, [each.n for each in estimates if each.value is not None and each.n])
        for heading, counted, estimates in columns
    ]
    known = [count for _, counted, counts in own if not counted for count in counts]
    usual = n if n is not None or not known else max(dict.fromkeys(known), key=known.count)
    others: dict[str, list[str]] = {}
    for heading, counted, counts in own:
        if counts and (counted or set(counts) != {usual}):
            least, most = min(counts), max(counts)
            size = f"{least}" if least == most else f"{least} to {most}"
            others.setdefault(f"{size} {counted}".strip(), []).append(one_line(heading))
    said = [f"n = {usual}"] if n is None and usual is not None else []
    if others:
        listed = [f"{', '.join(names)} {size}" for size, names in others.items()]
        said.append(f"n differs: {'; '.join(listed)}")
    return [f"{'; '.join(said)}."] if said else []


def both(comparison: Comparison) -> str:
    """Between whom a comparison is."""
    return f"{comparison.a} − {comparison.b}"


def comparison_section(
    title: str,
    found: Sequence[Comparison],
    captions: Sequence[str],
    *,
    chapter: str,
    who: tuple[str, Callable[[Comparison], str]] | None = ("a − b", both),
) -> Section:
    """A row per comparison; columns of what none of them has are left out.

    Args:
        title: the table's title.
        found: the comparisons.
        captions: its captions; what a verdict means is added where there is one.
        chapter: where in the page it stands.
        who: heading and text of the column that says between whom; None where the title says it.
    """
    shown: list[tuple[Column, Callable[[Comparison], Value], bool]] = [
        (text("metric"), lambda one: one_line(one.metric), True),
        (Column("diff"), lambda one: difference(one.difference), True),
        (Column("95% interval"), lambda one: Interval(one.low, one.high), True),
        (
            Column("bootstrap interval", optional=True),
            lambda one: Interval(one.bootstrap_low, one.bootstrap_high),
            any(one.bootstrap_low is not None for one in found),
        ),
        (text("test", optional=True), lambda one: one_line(one.test), True),
        (Column("p", optional=True), lambda one: p_value(one.p), True),
        (Column("Holm p"), lambda one: p_value(one.p_holm), True),
        (
            Column("Wilcoxon p", optional=True),
            lambda one: p_value(one.p_wilcoxon),
            any(one.p_wilcoxon is not None for one in found),
        ),
        (
            Column("TOST Holm p", optional=True),
            lambda one: p_value(one.p_tost_holm),
            any(one.p_tost_holm is not None for one in found),
        ),
        (Column("dz", optional=True), lambda one: difference(one.effect), True),
        (Column("n", optional=True), lambda one: count(one.n), True),
        (text("verdict"), verdict, True),
    ]
    if who is not None:
        heading, name = who
        shown.insert(0, (text(heading), lambda one: one_line(name(one)), True))
    kept = [(column, cell) for column, cell, known in shown if known]
    rows = [[cell(one) for _, cell in kept] for one in found]
    drawn = [BOOTSTRAP] if any(one.bootstrap_low is not None for one in found) else []
    return Section(
        title, [column for column, _ in kept], rows, [*captions, *drawn, *([VERDICT] if found else [])], chapter
    )


def done_results(report: Report, *kinds: Kind) -> list[Result]:
    """The results of these kinds that are done, kind by kind."""
    return [found for kind in kinds for found in report.results if found.kind == kind and found.status == "done"]


def measured(results: Iterable[Result]) -> list[tuple[str, Metrics]]:
    """The rows of a `metric_section` of results."""
    return [(found.name, found.metrics) for found in results]


def observed(report: Report, *sizes: Literal["pairs", "prompts", "seeds"]) -> list[str]:
    """A caption each: how many pairs, prompts or seeds there are. What they could have shown, the notes say."""
    known = report.detectable
    captions = {
        "pairs": known.pairs and _of_prompts("pairs", known.pairs),
        "prompts": known.prompts and _of_prompts("prompts", known.prompts),
        "seeds": known.seeds and f"n = {known.seeds.n} seeds.",
    }
    return [caption for size in sizes if (caption := captions[size])]


def pairs(report: Report) -> int | None:
    """How many pairs `observed` says."""
    return report.detectable.pairs.n if report.detectable.pairs else None


def prompts(report: Report) -> int | None:
    """How many prompts `observed` says."""
    return report.detectable.prompts.n if report.detectable.prompts else None


def _of_prompts(what: str, size: DetectableEffect) -> str:
    return f"n = {size.n} {what}{'' if size.prompts == size.n else f' of {size.prompts} prompts'}."
