"""The tables of policies compared on their answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from align_bench.report.formatting import UNDEFINED, number, one_line, plain, with_spread
from align_bench.report.section import Column, Report, Section, detectable, done_results, metric, metric_section, text

Render = Callable[[Mapping[str, Any]], str]


def policy_tables(report: Report) -> list[Section]:
    """Gains at equal length, drift, judge against gold, and win rates of all against all."""
    return [gains(report), drift(report), gold_against_judge(report), win_rates(report)]


def gains(report: Report) -> Section:
    """How much of a gain over the base is left at equal length."""
    shown: dict[str, tuple[str, Render]] = {
        "win rate": ("win_rate_vs_base", with_spread),
        "at equal length": ("win_rate_length_controlled", with_spread),
        "judge gain": ("judge_gain", with_spread),
        "within length": ("judge_gain_within_length", plain),
        "between length": ("judge_gain_between_length", plain),
    }
    captions = [
        "at equal length: σ(θ) of a logistic fit σ(θ + φ·tanh(Δwords/sd)) of the wins, with a weak ridge (0.01).",
        "judge gain: mean judged reward over the base's; within: between answers of like length (deciles of words); "
        "between: by writing other lengths. The two add up to it.",
        *detectable(report, "prompts"),
    ]
    results = [found for found in done_results(report, "policy") if metric(found, "judge_gain")["n"]]
    return metric_section("Gains over the base, by length", "policy", results, shown, captions, chapter="length")


def drift(report: Report) -> Section:
    """How far policies moved from the base, and what they got for it."""
    results = {found["cell"]: found for found in report["results"]}
    rows = [
        (
            one_line(point["cell"]),
            with_spread(point["kl"]) if point["cell"] in results else UNDEFINED,
            plain(metric(results[point["cell"]], "kl_per_token")),
            plain(metric(results[point["cell"]], "log_ratio")),
            plain(point["reward"]),
            plain(point["gold"]),
            "yes" if point["on_frontier"] else "no",
        )
        for point in _block(report).get("frontier", [])
    ]
    columns = [Column(heading) for heading in ("KL", "KL a token", "log-ratio", "judge", "gold accuracy")]
    captions = [
        "KL: of the policy from the base in nats an answer, on the policy's own answers, token by token (k3); "
        f"log-ratio: the mean of log π − log π_ref, its simplest estimate. {_temperature(report)}",
        "frontier: no other one has as much of the judge's reward for as little KL.",
        *detectable(report, "prompts"),
    ]
    moved = len(rows) > 1  # the base alone has not
    return Section(
        "Drift from the base, and the reward for it",
        [text("policy"), *columns, text("frontier", wraps=False)],
        rows if moved else [],
        captions,
        chapter="drift",
    )


def gold_against_judge(report: Report) -> Section:
    """Whether what the judge likes is right."""
    rows = [
        (
            one_line(found["cell"]),
            with_spread(found["judge_gain"]),
            with_spread(found["gold_gain"]),
            with_spread(found["correlation"]),
        )
        for found in _block(report).get("gold_against_judge", [])
    ]
    captions = [
        "Gains over the base, in the judge's reward and in the share of right answers; correlation (Pearson) of the "
        "two over prompts. A judge's gain without one in gold is over-optimisation.",
        *detectable(report, "prompts"),
    ]
    columns = [text("policy"), Column("judge gain"), Column("gold gain"), Column("correlation")]
    return Section("Judge against gold", columns, rows, captions, chapter="drift")


def win_rates(report: Report) -> Section:
    """Every policy against every other one; of several seeds, the mean over all pairs of them."""
    found = _block(report).get("win_rates", [])
    level = "method" if any(rate["level"] == "method" for rate in found) else "checkpoint"
    rates = {(rate["a"], rate["b"]): rate["value"] for rate in found if rate["level"] == level}
    names = list(dict.fromkeys(name for pair in rates for name in pair))
    rows = [(one_line(a), *(_rate(rates, a, b) for b in names)) for a in names] if len(names) > 2 else []
    captions = [
        "Share of prompts on which the row's answer is judged better than the column's; ties ½. Intervals are in "
        "report.json.",
        *(["Means over all pairs of seeds."] if level == "method" else []),
        *detectable(report, "prompts"),
    ]
    columns = [text("policy"), *(Column(one_line(name)) for name in names)]
    return Section("Win rates", columns, rows, captions, chapter="differences")


def _rate(rates: Mapping[tuple[str, str], float | None], a: str, b: str) -> str:
    if a == b:
        return "–"
    if (a, b) in rates:
        return number(rates[a, b])
    turned = rates.get((b, a))
    return UNDEFINED if turned is None else number(1 - turned)


def _block(report: Report) -> Mapping[str, Any]:
    block: Mapping[str, Any] = report.get("policies") or {}
    return block


def _temperature(report: Report) -> str:
    """What the KL is of, which depends on how the answers were drawn."""
    suite = report.get("suite")
    settings = suite.get("settings", {}) if isinstance(suite, Mapping) else {}
    given = settings.get("generate", {}).get("temperature")
    if given is None or given == 1:
        return "Both are unbiased for answers drawn at temperature 1."
    return f"The answers were drawn at temperature {given:g}, so that both describe these answers, not the policy's KL."
