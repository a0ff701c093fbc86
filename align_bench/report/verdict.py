"""The verdict in words: what is better than what, what is inconclusive, and what the seeds allow to claim."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from align_bench.records import CellId, Comparison, Kind, MetricKey
from align_bench.report.decision import Decision, decide, turned
from align_bench.report.formatting import interval, number, p_value, signed
from align_bench.report.schema import Ranking, Result
from align_bench.stats.seeds import MIN_SEEDS
from align_bench.suite.names import JUDGE_CELL

# Pairs of one kind that a sentence names before it counts the rest.
NAMED = 6
WHAT = {
    MetricKey("gold_accuracy"): "Right answers (gold_accuracy)",
    MetricKey("judge_reward"): "The judge's reward (judge_reward)",
    MetricKey("accuracy_right_shorter"): "Accuracy where the right answer is shorter (accuracy_right_shorter)",
}
ACCURACY: dict[Kind, str] = {
    "reward": "Accuracy of reward models (accuracy)",
    "policy": "Accuracy of policies by their own rewards (accuracy)",
}


def write_verdict(
    results: Sequence[Result], comparisons: Sequence[Comparison], rankings: Sequence[Ranking], equivalence_dz: float
) -> list[str]:
    """The verdict, a sentence per item: first what may be claimed at all, then measure by measure.

    Every claim has its difference, 95% interval and Holm-adjusted p.

    Args:
        results, comparisons, rankings: the report's blocks.
        equivalence_dz: the margin of equivalence, in standard deviations of the differences on one prompt.
    """
    if not rankings:
        return []
    ordered = sorted(rankings, key=lambda ranking: _place(ranking.metric))
    return [
        *_claimable(results, equivalence_dz),
        *(line for ranking in ordered for line in _measure(ranking, _of(ranking, comparisons, results))),
    ]


def _place(metric: MetricKey) -> int:
    """Gold first, then the judges, then what a model says of itself."""
    return {"gold_accuracy": 0, "judge_reward": 1}.get(metric.name, 2)


def _claimable(results: Sequence[Result], equivalence_dz: float) -> Iterator[str]:
    trained = [one for one in results if one.kind != "base" and one.algorithm != JUDGE_CELL]
    seeds = Counter(one.cell.method for one in trained if one.status == "done")
    few = [method for method, count in seeds.items() if count < MIN_SEEDS]
    enough = [method for method, count in seeds.items() if count >= MIN_SEEDS]
    if enough:
        yield (
            f"Claims about methods: {_listed(enough)} ({min(seeds[method] for method in enough)} or more seeds each). "
            "A difference counts when the test over seeds is significant after Holm's adjustment and the interval over "
            "resampled seeds and prompts excludes 0; equivalence counts when that interval lies within the margin too."
        )
    if few:
        whose = "" if not enough else f" of {_listed(few)}"
        yield (
            f"Claims about checkpoints only{whose}: a claim about a method needs at least {MIN_SEEDS} seeds, "
            f"and there {'is 1' if max(seeds[method] for method in few) == 1 else 'are fewer'}. "
            "These may not hold under another seed."
        )
    yield (
        f"Equivalent means within ±{equivalence_dz:g} standard deviations of the per-prompt differences "
        "(TOST, Holm-adjusted); inconclusive means that neither a difference nor equivalence was shown."
    )


def _listed(methods: Sequence[CellId]) -> str:
    return ", ".join(map(str, methods))


def _of(ranking: Ranking, comparisons: Sequence[Comparison], results: Sequence[Result]) -> list[Comparison]:
    """The comparisons of a ranking's measure at the highest level that it allows."""
    rewards = {cell for one in results if one.kind == "reward" for cell in (one.cell, one.cell.method)}
    ranked = {row.method for row in ranking.methods}
    return [
        found
        for found in comparisons
        if found.metric == ranking.metric
        and found.level == ranking.level
        and (found.a in rewards) == (ranking.kind == "reward")
        and {found.a.method, found.b.method} <= ranked
    ]


def _measure(ranking: Ranking, comparisons: Sequence[Comparison]) -> Iterator[str]:
    metric, first = ranking.metric, ranking.methods[0]
    what = ACCURACY[ranking.kind] if metric == MetricKey("accuracy") else WHAT.get(metric, str(metric))
    if ranking.prompts == ranking.n:
        units = f"{ranking.n} prompts"
    else:
        units = f"{ranking.n} pairs of {ranking.prompts} prompts"
    best = [str(one.method) for one in ranking.methods if one.rank == first.rank]
    yield (
        f"{what}, {ranking.level}s, {units}: {'highest' if len(best) == 1 else 'tied highest'} {', '.join(best)} "
        f"({number(first.value)}; rank {first.rank:g} [{first.low:g}, {first.high:g}] of {len(ranking.methods)})."
    )
    by_decision: dict[Decision, list[Comparison]] = {}
    for found in comparisons:
        by_decision.setdefault(decide(found), []).append(found)
    better = [*by_decision.get("higher", []), *map(turned, by_decision.get("lower", []))]
    if better:
        yield f"Higher on {metric}: {_several(list(map(_claim, better)))}."
    if alike := by_decision.get("equivalent"):
        largest = max(found.p_tost_holm for found in alike if found.p_tost_holm is not None)
        yield f"Equivalent on {metric} (TOST, Holm p up to {p_value(largest)}): {_several(list(map(_pair, alike)))}."
    if unclear := by_decision.get("none"):
        least = min((found.p_holm for found in unclear if found.p_holm is not None), default=None)
        yield f"Inconclusive on {metric} (Holm p from {p_value(least)}): {_several(list(map(_pair, unclear)))}."
    if untested := by_decision.get("undefined"):
        yield f"Too little data or variation for a test on {metric}: {_several(list(map(_pair, untested)))}."


def _claim(found: Comparison) -> str:
    within = found.difference is not None and found.margin is not None and abs(found.difference) < found.margin
    small = f", within the margin of {number(found.margin)}" if within else ""
    return (
        f"{found.a} over {found.b} by {signed(found.difference)} {interval(found.low, found.high)}, "
        f"Holm p {p_value(found.p_holm)}{small}"
    )


def _pair(found: Comparison) -> str:
    bounds = "" if found.low is None else f" {interval(found.low, found.high)}"
    return f"{found.a} and {found.b} ({signed(found.difference)}{bounds})"


def _several(items: Sequence[str]) -> str:
    more = len(items) - NAMED
    return "; ".join(items[:NAMED]) + (f"; and {more} more pairs" if more > 0 else "")
