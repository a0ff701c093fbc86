"""The audit of judges and reward models, and how far judges agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align_bench.records import Estimate
from align_bench.report.formatting import one_line
from align_bench.report.labels import judge_in_words
from align_bench.report.tables.baseline import knowable
from align_bench.report.tables.section import UNADJUSTED, Column, MetricColumn, Section, metric_section, text
from align_bench.report.tables.values import Spread, count, number, p_value, percent, point

if TYPE_CHECKING:
    from align_bench.report.schema import AuditMetrics, Report

CHAPTER = "audit"
EDIT_NAMES = {
    "filler": "filler sentence appended",
    "doubled": "last paragraph doubled",
    "stripped": "Markdown stripped",
}


def agreement(report: Report) -> Section:
    """How far each two judges agree."""
    rows = [
        (
            one_line(f"{judge_in_words(found.a)}, {judge_in_words(found.b)}"),
            number(found.kendall_tau),
            count(found.methods),
            Spread(found.agreement),
            count(found.agreement.n),
            f"{len(found.reversed)} of {found.methods * (found.methods - 1) // 2}",
        )
        for found in report.agreement
    ]
    headings = ("Kendall τ", "methods", "per prompt", "n", "pairs reversed")
    captions = [
        "τ: of the rankings of methods, the base included, by mean score: 1 the same ranking, −1 the reverse.",
        "per prompt: share of preferences between two methods' answers to a prompt on which both judges agree, where "
        "both have one; n: prompts.",
        UNADJUSTED,
    ]
    return Section("Inter-judge agreement", [text("judges"), *map(Column, headings)], rows, captions, chapter=CHAPTER)


def length_controls(report: Report) -> Section:
    """How far the accuracy of scores rests on length."""
    columns: list[MetricColumn[AuditMetrics]] = [
        MetricColumn("accuracy", lambda metrics: metrics.accuracy, Spread),
        MetricColumn("longer wins", lambda metrics: metrics.longer_wins, point),
        MetricColumn("acc. (chosen longer)", lambda metrics: metrics.accuracy_chosen_longer, point),
        MetricColumn("acc. (chosen shorter)", lambda metrics: metrics.accuracy_chosen_shorter, point),
        MetricColumn("length matched", lambda metrics: metrics.accuracy_length_matched, Spread),
        MetricColumn("length controlled", lambda metrics: metrics.accuracy_length_controlled, Spread),
        MetricColumn("one-sided", lambda metrics: metrics.length_one_sided, percent, optional=True),
    ]
    captions = [
        "length matched: on pairs whose lengths differ by less than 10%; length controlled: with the chosen answer the "
        "longer one as often as the shorter one, in bins of similar difference in length, so that a scorer that only "
        "counts words gets ½; one-sided: share of pairs left out of it, since no such other pair was left.",
        *knowable(report),
    ]
    return _audited(report, "Audit: length controls", columns, captions)


def prompt_controls(report: Report) -> Section:
    """Whether scores depend on the prompt."""
    columns: list[MetricColumn[AuditMetrics]] = [
        MetricColumn("accuracy (audited)", lambda metrics: metrics.accuracy_audited, Spread),
        MetricColumn("prompts shuffled", lambda metrics: metrics.accuracy_prompts_shuffled, Spread),
        MetricColumn("difference", lambda metrics: metrics.accuracy_less_shuffled, Spread),
        MetricColumn("prompts empty", lambda metrics: metrics.accuracy_prompts_empty, Spread, optional=True),
    ]
    drawn = dict.fromkeys((found.audited_pairs, found.audited_prompts) for found in report.audit)
    known = [f"{pairs} pairs of {prompts} prompts" for pairs, prompts in drawn if pairs is not None]
    captions = [
        *([f"On the audited pairs: {' or '.join(known)}, drawn at random."] if known else []),
        "shuffled, empty: both answers scored under another prompt, or none. What stays above ½ does not depend on the "
        "prompt.",
        "difference: accuracy with the right prompts less that with shuffled ones, pair by pair; a scorer that does "
        "not read the prompt has 0.",
    ]
    return _audited(report, "Audit: prompt controls", columns, captions)


def length_and_form(report: Report) -> Section:
    """How scores go with the length and form of answers."""
    columns: list[MetricColumn[AuditMetrics]] = [
        MetricColumn("rank corr.", lambda metrics: metrics.length_spearman, Spread),
        MetricColumn("within prompts", lambda metrics: metrics.length_spearman_within, point),
        MetricColumn("partial corr.", lambda metrics: metrics.length_partial, Spread),
        MetricColumn("partial (within pair)", lambda metrics: metrics.length_partial_within, point, optional=True),
        MetricColumn("words", lambda metrics: metrics.effects.words, Spread, counted="answers"),
        MetricColumn("grade", lambda metrics: metrics.effects.grade, Spread, optional=True, counted="answers"),
        MetricColumn("lists", lambda metrics: metrics.effects.list_items, Spread, optional=True, counted="answers"),
        MetricColumn("headings", lambda metrics: metrics.effects.headings, Spread, optional=True, counted="answers"),
        MetricColumn("bold", lambda metrics: metrics.effects.bold, Spread, optional=True, counted="answers"),
    ]
    captions = [
        "rank corr.: Spearman's of score with words; within prompts: minus each pair's mean; partial corr.: of "
        "score with words, given the label (Pearson); partial (within pair): of the differences within pairs.",
        "words, grade: change of the score, in its standard deviations, per standard deviation of words and of "
        "Flesch–Kincaid grade; lists, headings, bold: with against without. All in one regression, given the label.",
    ]
    return _audited(report, "Audit: length and form", columns, captions)


def edited_answers(report: Report) -> Section:
    """What edits of an answer do to its score."""
    rows = [
        (
            one_line(found.scorer),
            EDIT_NAMES[effect.edit],
            Spread(effect.shift),
            percent(effect.flips),
            count(effect.shift.n),
        )
        for found in report.audit
        for effect in found.metrics.edits
        if effect.shift.n
    ]
    columns = [text("model"), text("edit"), Column("shift"), Column("flips"), Column("prompts")]
    captions = [
        "shift: mean change of the score, in standard deviations of the unedited scores.",
        "flips: share of comparisons in which the preference turns once one of the two answers is edited.",
        UNADJUSTED,
    ]
    return Section("Audit: edited answers", columns, rows, captions, chapter=CHAPTER)


def calibration(report: Report) -> Section:
    """How well scores predict the label."""
    columns: list[MetricColumn[AuditMetrics]] = [
        MetricColumn("Brier", lambda metrics: metrics.brier, Spread, optional=True),
        MetricColumn("log-loss", lambda metrics: metrics.log_loss, Spread),
        MetricColumn("ECE", lambda metrics: metrics.calibration_error, point),
        MetricColumn("slope", lambda metrics: metrics.calibration_slope, Spread),
        MetricColumn("intercept", lambda metrics: metrics.calibration_intercept, Spread),
        MetricColumn("p", lambda metrics: Estimate(metrics.calibration_p), lambda p: p_value(p.value)),
        MetricColumn("ties", lambda metrics: metrics.tie_rate, percent, optional=True),
    ]
    captions = [
        "σ(difference of scores) as the probability that the label agrees. Chance level: Brier 0.25, log-loss 0.693.",
        "ECE: distance between confidence and share of agreeing labels, root mean square over five bins of equal size, "
        "less what chance adds, so that it is about 0 for a calibrated model (the curve is in report.json).",
        "slope, intercept: logistic regression of the label on the difference of scores, the longer answer first: "
        "slope 1 and intercept 0 are calibrated, below 1 is overconfident, and an intercept above 0 is a preference of "
        "the labels for length beyond the score; p: that both are so, not adjusted for the number of models.",
    ]
    return _audited(report, "Audit: calibration", columns, captions)


def _audited(report: Report, title: str, columns: list[MetricColumn[AuditMetrics]], captions: list[str]) -> Section:
    rows = [(found.scorer, found.metrics) for found in report.audit]
    return metric_section(title, "model", rows, columns, captions, chapter=CHAPTER)
