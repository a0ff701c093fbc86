"""Reward models' scores: of correct and wrong choices, and under attack."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from align_bench.records import Estimate
from align_bench.report.formatting import one_line
from align_bench.report.tables.section import (
    Column,
    MetricColumn,
    Section,
    done_results,
    measured,
    metric_section,
    observed,
    pairs,
    text,
)
from align_bench.report.tables.values import Interval, Spread, count, difference, number, p_value

if TYPE_CHECKING:
    from align_bench.report.schema import Metrics, Report

CHAPTER = "scores"


def attacked(report: Report) -> Section:
    """Accuracy of reward models under attack, by the size of the attack."""
    results = done_results(report, "reward")
    epsilons = dict.fromkeys(attack.epsilon for found in results for attack in found.metrics.attacked)
    columns: list[MetricColumn[Metrics]] = [
        MetricColumn("ε = 0", lambda metrics: metrics.accuracy, Spread),
        *(MetricColumn(f"ε = {epsilon:g}", _accuracy_at(epsilon), Spread) for epsilon in epsilons),
    ]
    captions = [
        "ε: one gradient step on the input embeddings of each answer against its label, of ε × their norm.",
        *observed(report, "pairs"),
    ]
    rows = measured(results) if epsilons else []
    title = "Reward accuracy under attack"
    return metric_section(title, "model", rows, columns, captions, chapter=CHAPTER, n=pairs(report))


def score_groups(report: Report) -> Section:
    """Every reward model's higher scores, of preferred answers against the others."""
    rows = [
        (
            one_line(found.cell),
            count(found.correct.n),
            number(found.correct.mean),
            count(found.wrong.n),
            number(found.wrong.mean),
            difference(found.test.difference),
            Interval(found.test.low, found.test.high),
            number(found.test.t),
            p_value(found.test.p),
        )
        for found in report.course.scores
    ]
    headings = ("n correct", "mean correct", "n wrong", "mean wrong", "diff", "95% interval", "Welch t", "p")
    captions = [
        "The higher of a pair's two scores is correct when the preferred answer has it, else wrong; ties are in "
        "neither. The two groups hold different pairs; Welch's t-test is not adjusted for the number of models.",
        *observed(report, "pairs"),
    ]
    columns = [text("model"), *(Column(heading, optional=heading == "Welch t") for heading in headings)]
    return Section("Scores of correctly and incorrectly ranked pairs", columns, rows, captions, chapter=CHAPTER)


def _accuracy_at(epsilon: float) -> Callable[[Metrics], Estimate]:
    def accuracy(metrics: Metrics) -> Estimate:
        return next((found.accuracy for found in metrics.attacked if found.epsilon == epsilon), Estimate(None))

    return accuracy
