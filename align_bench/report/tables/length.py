"""How far reward models prefer length, and how long and of what form answers are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align_bench.metrics.scripts import COUNTED_BY_CHARACTER
from align_bench.report.formatting import UNDEFINED, one_line
from align_bench.report.tables.section import (
    Column,
    MetricColumn,
    Section,
    comparison_section,
    done_results,
    measured,
    metric_section,
    observed,
    pairs,
    prompts,
    text,
)
from align_bench.report.tables.values import Number, Spread, Value, count, percent, point, tenths
from align_bench.suite.names import JUDGE_CELL

if TYPE_CHECKING:
    from align_bench.metrics.distribution import Distribution
    from align_bench.records import CellId
    from align_bench.report.schema import Metrics, Report

CHAPTER = "length"
BIASES = ("length_correlation_given_label", "length_correlation_given_gold", "accuracy_right_shorter")


def length_bias(report: Report) -> Section:
    """How far reward models prefer length; a single one has nothing to be held against."""
    columns: list[MetricColumn[Metrics]] = [
        MetricColumn("corr. given label", lambda metrics: metrics.length_correlation_given_label, Spread),
        MetricColumn("corr. given gold", lambda metrics: metrics.length_correlation_given_gold, Spread),
        MetricColumn("acc. (chosen shorter)", lambda metrics: metrics.accuracy_chosen_shorter, Spread),
        MetricColumn("acc. (right shorter)", lambda metrics: metrics.accuracy_right_shorter, Spread),
    ]
    captions = [
        "corr.: partial correlation of score with words, given which answer is the chosen (label) or right (gold) one.",
        "acc. (chosen shorter), acc. (right shorter): accuracy where the chosen, or the right, answer has fewer words.",
        *observed(report, "pairs"),
    ]
    results = [found for found in done_results(report, "reward") if found.algorithm != JUDGE_CELL]
    rows = measured(results) if len(results) > 1 else []
    title = "Length bias of reward models"
    return metric_section(title, "model", rows, columns, captions, chapter=CHAPTER, n=pairs(report))


def length_bias_against_first(report: Report) -> Section:
    """The suite's first reward model against every other one of its seed."""
    first: dict[int, CellId] = {}
    for found in done_results(report, "reward"):
        if found.algorithm != JUDGE_CELL:
            first.setdefault(found.seed, found.cell)
    seeds = {found.cell: found.seed for found in report.results}
    chosen = [
        found
        for found in report.comparisons
        if found.level == "checkpoint" and found.metric.name in BIASES and found.a == first.get(seeds[found.b])
    ]
    captions = [
        "A positive difference of correlations, or a negative one of accuracies: the first model is the more biased.",
        "The bootstrap is an interval, not a test; its verdict is whether that excludes 0. It is adjusted "
        "(Bonferroni): all intervals of one correlation hold together at 95%.",
        *observed(report, "pairs"),
    ]
    return comparison_section(
        "Length bias of the first reward model against the others", chosen, captions, chapter=CHAPTER
    )


def favoured_answers(report: Report) -> Section:
    """Length and readability of the validation answers that the label and each model favour, and of the others."""
    rows = [
        (
            one_line(found.by),
            found.side,
            *_summary(found.words, "{:.0f}"),
            *_summary(found.grade, "{:.1f}"),
            count(found.grade.n_valid),
        )
        for found in report.course.answers
    ]
    columns = [text("by"), text("answers", wraps=False)]
    columns += [Column(f"{what} {kind}") for what in ("words", "grade") for kind in ("mean", "median", "quartiles")]
    captions = [
        "favoured: the answer with the higher score, or the one that the data prefers (label); ties are left out.",
        "grade: Flesch–Kincaid; graded: answers that have one, which texts without Latin words have not.",
        f"words: {COUNTED_BY_CHARACTER}.",
        *observed(report, "pairs"),
    ]
    title = "Length and readability of favoured answers"
    return Section(title, [*columns, Column("graded")], rows, captions, CHAPTER)


def gains(report: Report) -> Section:
    """How much of a gain over the base is left at equal length."""
    columns: list[MetricColumn[Metrics]] = [
        MetricColumn("win rate", lambda metrics: metrics.win_rate_vs_base, Spread),
        MetricColumn("LC win rate", lambda metrics: metrics.win_rate_length_controlled, Spread),
        MetricColumn("judge gain", lambda metrics: metrics.judge_gain, Spread),
        MetricColumn("within length", lambda metrics: metrics.judge_gain_within_length, point),
        MetricColumn("between length", lambda metrics: metrics.judge_gain_between_length, point, optional=True),
    ]
    captions = [
        "LC win rate: length-controlled, σ(θ) of a logistic fit σ(θ + φ·tanh(Δwords/sd)) of the wins, with a weak "
        "ridge (0.01).",
        "judge gain: mean judge reward minus the base's; within: between answers of similar length (deciles of words); "
        "between: from writing other lengths. The two add up to it.",
        *observed(report, "prompts"),
    ]
    rows = measured(found for found in done_results(report, "policy") if found.metrics.judge_gain.n)
    title = "Length-controlled win rate and judge gain"
    return metric_section(title, "policy", rows, columns, captions, chapter=CHAPTER, n=prompts(report))


def texts(report: Report) -> Section:
    """What the texts of the generations are like."""
    columns: list[MetricColumn[Metrics]] = [
        MetricColumn("characters", lambda metrics: metrics.length_characters, tenths),
        MetricColumn("distinct 1", lambda metrics: metrics.distinct_1, point, counted="n-grams"),
        MetricColumn("distinct 2", lambda metrics: metrics.distinct_2, point, counted="n-grams"),
        MetricColumn("distinct 3", lambda metrics: metrics.distinct_3, point, counted="n-grams"),
        MetricColumn("4-gram repetition", lambda metrics: metrics.repetition, percent),
    ]
    captions = [
        "distinct n: different n-grams of words / all n-grams of all answers (Li et al. 2016); it falls as text grows.",
        "4-gram repetition: share of 4-grams of words that the answer has said before (Welleck et al. 2020), mean over "
        "answers.",
        *observed(report, "prompts"),
    ]
    results = [found for found in done_results(report, "base", "policy") if found.metrics.length_words.n]
    title = "Lexical diversity of generations"
    return metric_section(title, "policy", measured(results), columns, captions, chapter=CHAPTER, n=prompts(report))


def _summary(found: Distribution, form: str) -> tuple[Value, Value, Value]:
    """Mean, median and quartiles."""

    def number(value: float | None) -> Number:
        return Number(value, UNDEFINED if value is None else form.format(value))

    quartiles = UNDEFINED if found.q1 is None else f"{number(found.q1)}–{number(found.q3)}"
    return number(found.mean), number(found.median), quartiles
