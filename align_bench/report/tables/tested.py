"""The base and the policies on the test pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align_bench.report.decision import ALPHA
from align_bench.report.formatting import one_line
from align_bench.report.tables.section import UNADJUSTED, Column, Section, text
from align_bench.report.tables.values import Interval, Spread, difference, p_value, point

if TYPE_CHECKING:
    from align_bench.report.schema import Report

CHAPTER = "leaderboard"


def tested(report: Report) -> Section:
    """The base and every policy on pairs that nothing was chosen on, where the suite has some."""
    rows = [
        (
            one_line(found.cell),
            Spread(found.accuracy_logp_mean),
            difference(found.difference),
            Interval(found.low, found.high),
            p_value(found.p_holm),
            point(found.accuracy_logratio),
            point(found.accuracy),
            point(found.reward_mean),
            point(found.reward_std),
        )
        for found in report.tested
    ]
    columns = [
        *(text("policy"), Column("acc. (mean logp)"), Column("less base's"), Column("95% interval", optional=True)),
        *(Column("Holm p"), Column("acc. (log-ratio)"), Column("accuracy", optional=True)),
        *(Column("reward mean"), Column("reward std")),
    ]
    captions = [
        f"{max((found.accuracy.n for found in report.tested), default=0)} pairs of data.test, on which nothing was "
        "trained or chosen. accuracy, reward mean and std are of each one's own reward, as on the validation pairs, so "
        "that they mean something different for each method.",
        "acc. (mean logp) means the same for all, the base included. Holm p: of its difference to the base's, "
        f"adjusted over the policies; below {ALPHA:.0%} these checkpoints differ. A tie counts as ½.",
        UNADJUSTED,
    ]
    return Section("Base and policies on the test split", columns, rows, captions, chapter=CHAPTER)
