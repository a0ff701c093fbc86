"""Reward models on the validation pairs, policies on them and by their answers, and what has no result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from align_bench.metrics.scripts import COUNTED_BY_CHARACTER
from align_bench.records import Estimate
from align_bench.report.formatting import UNDEFINED, one_line, with_spread
from align_bench.report.tables.baseline import knowable
from align_bench.report.tables.section import (
    MetricColumn,
    Section,
    done_results,
    measured,
    metric_section,
    observed,
    pairs,
    prompts,
    text,
)
from align_bench.report.tables.values import Spread, percent, point, tenths

if TYPE_CHECKING:
    from align_bench.report.schema import Metrics, Report, Result

CHAPTER = "results"
HEAVY_TAILS = (
    "Intervals of standard deviations are in report.json: of scores with heavy tails they hold the true one less often "
    "than 95% (85% for 100 prompts of lognormal scores in benchmarks/false_claims.py)."
)


def reward_models(report: Report) -> Section:
    """Reward models on the validation pairs."""
    columns: list[MetricColumn[Metrics]] = [
        MetricColumn("accuracy", lambda metrics: metrics.accuracy, Spread),
        MetricColumn("ties", lambda metrics: metrics.tie_rate, percent, optional=True),
        MetricColumn("acc. (chosen longer)", lambda metrics: metrics.accuracy_chosen_longer, point),
        MetricColumn("acc. (chosen shorter)", lambda metrics: metrics.accuracy_chosen_shorter, point),
        MetricColumn("acc. (gold)", lambda metrics: metrics.accuracy_gold_choice, point),
        MetricColumn("margin", lambda metrics: metrics.margin, Spread),
        MetricColumn("reward mean", lambda metrics: metrics.reward_mean, point, optional=True),
        MetricColumn("reward std", lambda metrics: metrics.reward_std, point, optional=True),
    ]
    rows = measured(done_results(report, "reward"))
    title = "Reward models on the validation pairs"
    return metric_section(title, "model", rows, columns, _of_pairs(report), chapter=CHAPTER, n=pairs(report))


def policies(report: Report) -> Section:
    """Policies on the validation pairs, by their own rewards and by two measures that are the same for all."""
    columns: list[MetricColumn[Metrics]] = [
        MetricColumn("accuracy", lambda metrics: metrics.accuracy, Spread),
        MetricColumn("ties", lambda metrics: metrics.tie_rate, percent, optional=True),
        MetricColumn("acc. (mean logp)", lambda metrics: metrics.accuracy_logp_mean, point),
        MetricColumn("acc. (log-ratio)", lambda metrics: metrics.accuracy_logratio, point),
        MetricColumn("acc. (gold)", lambda metrics: metrics.accuracy_gold_choice, point),
        MetricColumn("log-ratio chosen", lambda metrics: metrics.log_ratio_chosen, point, optional=True),
        MetricColumn("log-ratio rejected", lambda metrics: metrics.log_ratio_rejected, point, optional=True),
        MetricColumn("margin", lambda metrics: metrics.margin, Spread),
        MetricColumn("reward mean", lambda metrics: metrics.reward_mean, point, optional=True),
        MetricColumn("reward std", lambda metrics: metrics.reward_std, point, optional=True),
    ]
    results = done_results(report, "base", "policy")
    captions = [
        *_rewards(results),
        "acc. (mean logp): accuracy of the mean log-probability per token; acc. (log-ratio): accuracy of the log-ratio "
        "to the base; log-ratio chosen, rejected: its mean over these answers, nats per answer; below 0 they have "
        "become less likely than under the base.",
        *_of_pairs(report),
    ]
    title = "Policies on the validation pairs"
    return metric_section(title, "policy", measured(results), columns, captions, chapter=CHAPTER, n=pairs(report))


def judged(report: Report) -> Section:
    """Generations, scored by the judges."""
    results = [found for found in done_results(report, "base", "policy") if found.metrics.length_words.n]
    others = dict.fromkeys(reward.judge for found in results for reward in found.metrics.other_judges)
    columns: list[MetricColumn[Metrics]] = [
        MetricColumn("judge", lambda metrics: metrics.judge_reward_mean, Spread),
        *(MetricColumn(f"[{judge}]", _mean_by(judge), Spread) for judge in others),
        MetricColumn("std", lambda metrics: metrics.judge_reward_std, point, optional=True),
        MetricColumn("win rate", lambda metrics: metrics.win_rate_vs_base, Spread),
        MetricColumn("gold accuracy", lambda metrics: metrics.gold_accuracy, Spread),
        MetricColumn("words", lambda metrics: metrics.length_words, tenths),
        MetricColumn("answer tokens", lambda metrics: metrics.length_tokens, tenths, optional=True),
        MetricColumn("grade", lambda metrics: metrics.readability_grade, tenths, optional=True),
        MetricColumn("unfinished", lambda metrics: metrics.unfinished_share, percent),
    ]
    captions = [
        "win rate: of an answer against one of the base to the same prompt, a tie counts as ½; grade: Flesch–Kincaid; "
        "unfinished: answers truncated at the token limit.",
        f"words: {COUNTED_BY_CHARACTER}.",
        *observed(report, "prompts"),
        HEAVY_TAILS,
    ]
    if report.judges and (rewarded := report.judges[0].rewarded):
        captions.append(
            f"The judge is the very reward that {', '.join(map(one_line, rewarded))} learned from or picked by: its "
            f"scores are no independent verdict on {'it' if len(rewarded) == 1 else 'them'}."
        )
    title = "Generations, judged"
    return metric_section(title, "policy", measured(results), columns, captions, chapter=CHAPTER, n=prompts(report))


def failures(report: Report) -> Section:
    """Cells without a result, and why."""
    methods = report.tuning.methods if report.tuning else []
    ended = [(found.name, found.status, found.reason) for found in report.results]
    ended += [(str(trial.cell), trial.status, trial.reason) for found in methods for trial in found.trials]
    rows = [
        (one_line(name), status, one_line(reason or UNDEFINED)) for name, status, reason in ended if status != "done"
    ]
    columns = [text("cell"), text("status", wraps=False), text("reason")]
    return Section("Failed or skipped cells", columns, rows, chapter=CHAPTER)


def _mean_by(judge: str) -> Callable[[Metrics], Estimate]:
    def mean(metrics: Metrics) -> Estimate:
        return next((found.mean for found in metrics.other_judges if found.judge == judge), Estimate(None))

    return mean


def _rewards(results: Sequence[Result]) -> Iterator[str]:
    cells: dict[str, list[str]] = {}
    for found in results:
        if found.reward:
            cells.setdefault(found.reward, []).append(found.name)
    if cells:
        defined = "; ".join(f"{one_line(reward)} ({one_line(', '.join(own))})" for reward, own in cells.items())
        yield f"Reward: {defined}."


def _of_pairs(report: Report) -> list[str]:
    longer = report.baselines.longer_wins
    baseline = [] if longer.value is None else [f"Preferring the longer answer: accuracy {with_spread(longer)}."]
    return [
        *observed(report, "pairs"),
        *baseline,
        *knowable(report),
        "A tie counts as ½; lengths in words.",
        HEAVY_TAILS,
    ]
