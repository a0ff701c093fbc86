"""Policies against the base, methods over their seeds, win rates, and own rewards beside judge and gold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from align_bench.records import CellId, Comparison, Estimate, MetricKey
from align_bench.report.formatting import UNDEFINED, interval, one_line, signed
from align_bench.report.tables.section import (
    Column,
    Section,
    comparison_section,
    done_results,
    observed,
    text,
)
from align_bench.report.tables.values import Value, number, point

if TYPE_CHECKING:
    from align_bench.report.schema import Metrics, Report

CHAPTER = "differences"
OWN_REWARD = "proxy_reward"
BESIDE_IT = (MetricKey("judge_reward"), MetricKey("gold_accuracy"))


def against_base(report: Report) -> Section:
    """Every policy checkpoint against the base."""
    captions = [
        "A positive difference is a gain over the base. These are tests of these checkpoints, not of their methods.",
        *observed(report, "pairs", "prompts"),
    ]
    return comparison_section(
        "Policies against the base",
        _against_base(report),
        captions,
        chapter=CHAPTER,
        who=("policy", lambda one: str(one.a)),
    )


def methods(report: Report) -> Section:
    """Every method against the others and the base, over seeds."""
    chosen = [found for found in report.comparisons if found.level == "method"]
    captions = [
        "n: seeds of the smaller group. Tests and intervals are over seeds and prompts together.",
        *observed(report, "seeds"),
    ]
    return comparison_section("Methods, across seeds", chosen, captions, chapter=CHAPTER)


def win_rates(report: Report) -> Section:
    """Every policy against every other one; of several seeds, the mean over all pairs of them."""
    found = report.policies.win_rates
    level = "method" if any(rate.level == "method" for rate in found) else "checkpoint"
    rates = {(rate.a, rate.b): rate.rate.value for rate in found if rate.level == level}
    names = list(dict.fromkeys(name for pair in rates for name in pair))
    rows = [(one_line(a), *(_win_rate(rates, a, b) for b in names)) for a in names] if len(names) > 2 else []
    captions = [
        "Share of answers of the row that are judged better than one of the column's to the same prompt; a tie counts "
        "as ½. Intervals are "
        "in report.json.",
        *(["Means over all pairs of seeds."] if level == "method" else []),
        *observed(report, "prompts"),
    ]
    columns = [text("policy"), *(Column(one_line(name)) for name in names)]
    return Section("Win rates", columns, rows, captions, chapter=CHAPTER)


def own_reward(report: Report) -> Section:
    """Policies by the reward model that they learned from or picked by, beside the judge and gold."""
    gains: dict[CellId, dict[MetricKey, Comparison]] = {}
    for one in _against_base(report):
        gains.setdefault(one.a, {})[one.metric] = one
    base = next((found.metrics for found in done_results(report, "base")), None)
    rows: list[tuple[Value, ...]] = []
    for found in done_results(report, "policy"):
        own = gains.get(found.cell, {})
        for key in own:
            if key.name == OWN_REWARD:
                rows.append(
                    (
                        one_line(found.name),
                        one_line(key.of),
                        point(_mean_by(found.metrics, key.of)),
                        UNDEFINED if base is None else point(_mean_by(base, key.of)),
                        *(_gain(own.get(each)) for each in (key, *BESIDE_IT)),
                    )
                )
    columns = [text("policy"), text("reward", wraps=False), Column("own reward"), Column("own reward (base)")]
    columns += [Column(heading) for heading in ("own gain", "judge gain", "gold gain")]
    captions = [
        "own reward: mean score of the policy's answers by the reward model that it learned from or picked by; own "
        "reward (base): of the base's answers by the same model.",
        "Gains over the base, prompt by prompt, with 95% intervals, each on its own, not adjusted. Own reward up and "
        "gold down: over-optimised.",
        *observed(report, "prompts"),
    ]
    return Section("Own reward against judge and gold", columns, rows, captions, chapter=CHAPTER)


def _against_base(report: Report) -> list[Comparison]:
    bases = {found.cell for found in report.results if found.kind == "base"}
    return [found for found in report.comparisons if found.level == "checkpoint" and found.b in bases]


def _win_rate(rates: Mapping[tuple[CellId, CellId], float | None], a: CellId, b: CellId) -> Value:
    if a == b:
        return "–"
    if (a, b) in rates:
        return number(rates[a, b])
    turned = rates.get((b, a))
    return number(None if turned is None else 1 - turned)


def _mean_by(metrics: Metrics, reward: str) -> Estimate:
    return next((found.mean for found in metrics.proxies if found.reward == reward), Estimate(None))


def _gain(found: Comparison | None) -> str:
    return UNDEFINED if found is None else f"{signed(found.difference)} {interval(found.low, found.high)}"
