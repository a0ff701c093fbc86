"""How far policies moved from the base, and whether what the judge likes is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from align_bench.records import MetricKey
from align_bench.report.decision import turned
from align_bench.report.formatting import UNDEFINED, interval, one_line, p_value, signed
from align_bench.report.tables.section import UNADJUSTED, Column, Section, observed, prompts, sizes, text
from align_bench.report.tables.values import Spread, Value, point

if TYPE_CHECKING:
    from align_bench.report.schema import Report, Result

CHAPTER = "drift"


def drift_from_base(report: Report) -> Section:
    """How far policies moved from the base, and what they got for it."""
    metrics = {found.cell: found.metrics for found in report.results}
    rows = [
        (
            one_line(found.cell),
            Spread(found.kl),
            point(metrics[found.cell].kl_per_token),
            point(metrics[found.cell].log_ratio),
            point(found.reward),
            point(found.gold),
            "yes" if found.on_frontier else "no",
        )
        for found in report.policies.frontier
    ]
    columns = [Column(heading) for heading in ("KL", "KL per token", "log-ratio", "judge", "gold accuracy")]
    captions = [
        "KL: of the policy from the base in nats per answer, on the policy's own answers, token by token (k3); "
        f"log-ratio: the mean of log π − log π_ref, its simplest estimate. {_temperature(report)}",
        "frontier: whether the policy is on the Pareto frontier of judge reward and KL.",
        *observed(report, "prompts"),
        *sizes(
            [
                ("KL", "", [found.kl for found in report.policies.frontier]),
                ("judge", "", [found.reward for found in report.policies.frontier]),
                ("gold accuracy", "", [found.gold for found in report.policies.frontier]),
            ],
            prompts(report),
        ),
        UNADJUSTED,
    ]
    moved = len(rows) > 1  # the base alone has not
    return Section(
        "KL to the base against reward",
        [text("policy"), *columns, text("frontier", wraps=False)],
        rows if moved else [],
        captions,
        chapter=CHAPTER,
    )


def against_start(report: Report) -> Section:
    """How far policies moved from what they start from, and what they got for it."""
    rows: list[Sequence[Value]] = []
    for found in report.results:
        if found.kind != "policy" or found.status != "done" or not found.chain:
            continue
        metrics = found.metrics
        gains = [_gain(report, found, MetricKey(name)) for name in ("judge_reward", "gold_accuracy")]
        rows.append(
            (
                one_line(found.name),
                one_line(" → ".join(found.chain)),
                Spread(metrics.kl_from_start),
                point(metrics.kl),
                Spread(metrics.win_rate_vs_start),
                *gains,
            )
        )
    columns = [Column(heading) for heading in ("KL to start", "KL to base", "win rate vs start")]
    return Section(
        "Policies against what they start from",
        [text("policy"), text("chain"), *columns, text("judge vs start"), text("gold vs start")],
        rows,
        [
            "chain: each starts from the one before, from the first start on; KL: nats per answer, on the policy's own "
            "answers; win rate: by the judge against the answers of the start, a tie counts as ½; judge, gold: the "
            "tested difference to the start, with Holm's p over all tests of the metric between checkpoints.",
            *observed(report, "prompts"),
            UNADJUSTED,
        ],
        chapter=CHAPTER,
    )


def _gain(report: Report, found: Result, metric: MetricKey) -> str:
    """The difference to the start, as it was tested; dashes where it was not."""
    for one in report.comparisons:
        if one.level == "checkpoint" and one.metric == metric and {one.a, one.b} == {found.cell, found.start}:
            own = one if one.a == found.cell else turned(one)
            bounds = "" if own.low is None else f" {interval(own.low, own.high)}"
            return UNDEFINED if own.difference is None else f"{signed(own.difference)}{bounds}, p {p_value(own.p_holm)}"
    return UNDEFINED


def gold_against_judge(report: Report) -> Section:
    """Whether what the judge likes is right."""
    rows = [
        (one_line(found.cell), Spread(found.judge_gain), Spread(found.gold_gain), Spread(found.correlation))
        for found in report.policies.gold_against_judge
    ]
    captions = [
        "Gains over the base, in the judge's reward and in the share of right answers; correlation (Pearson) of the "
        "two over prompts. A gain by the judge without one in gold is over-optimisation.",
        *observed(report, "prompts"),
        *sizes(
            [
                ("judge gain", "", [found.judge_gain for found in report.policies.gold_against_judge]),
                ("gold gain", "", [found.gold_gain for found in report.policies.gold_against_judge]),
                ("correlation", "", [found.correlation for found in report.policies.gold_against_judge]),
            ],
            prompts(report),
        ),
        UNADJUSTED,
    ]
    columns = [text("policy"), Column("judge gain"), Column("gold gain"), Column("correlation")]
    return Section("Judge gain against gold gain", columns, rows, captions, chapter=CHAPTER)


def _temperature(report: Report) -> str:
    """What the KL is of, which depends on how the answers were drawn."""
    generate = report.suite.settings.get("generate")
    given = generate.get("temperature") if isinstance(generate, Mapping) else None
    if not isinstance(given, int | float) or given == 1:
        return "Both are unbiased for answers drawn at temperature 1."
    return f"The answers were drawn at temperature {given:g}, so that both describe these answers, not the policy's KL."
