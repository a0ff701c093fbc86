"""Judges and reward models against preferring the longer answer, and what is the most that can be known of labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align_bench.report.formatting import number, one_line
from align_bench.report.tables.section import Column, Section, text
from align_bench.report.tables.values import Interval, Spread, count, difference, p_value

if TYPE_CHECKING:
    from align_bench.report.schema import Report

CHAPTER = "audit"
VERDICTS = {
    "above": "above",
    "below": "below",
    "none": "not shown to differ",
    "undefined": "undefined",
}


def against_longer(report: Report) -> Section:
    """Whether each judge and reward model is better than preferring the longer answer."""
    rows = [
        (
            one_line(found.scorer),
            Spread(found.accuracy),
            Spread(found.longer_wins),
            difference(found.difference),
            Interval(found.low, found.high),
            found.test,
            p_value(found.p),
            p_value(found.p_holm),
            count(found.n),
            count(found.prompts),
            VERDICTS[found.decision],
        )
        for found in report.against_longer
    ]
    headings = [Column(heading) for heading in ("accuracy", "longer wins", "diff", "95% interval")]
    columns = [
        *(text("model"), *headings, text("test", optional=True), Column("p", optional=True), Column("Holm p")),
        *(Column("n", optional=True), Column("prompts", optional=True), text("against longer")),
    ]
    captions = [
        "longer wins: accuracy of preferring the answer with more words, on the same pairs; a tie counts as ½.",
        "above, below: Holm-adjusted p (over this table) below 5%; claims about checkpoints, not about methods. "
        "Intervals are at 95%, each on its own, not adjusted.",
        *knowable(report),
    ]
    return Section("Against preferring the longer answer", columns, rows, captions, chapter=CHAPTER)


def knowable(report: Report) -> list[str]:
    """A caption that says how accurate anything can be, where the data tell."""
    share = report.baselines.labels_knowable
    if share.value is None:
        return []
    return [
        f"Labels are sampled: even their true probabilities are right on {number(share.value)} of them, on average."
    ]
