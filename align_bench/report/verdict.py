"""The verdict in words: what is better than what, what could not be told apart, and what the seeds allow to claim."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from align_bench.report.decision import Decision, decide, turned
from align_bench.report.formatting import interval, number, p_value
from align_bench.report.naming import method_of
from align_bench.stats.seeds import MIN_SEEDS
from align_bench.suite.names import JUDGE_CELL

Comparison = Mapping[str, Any]
# Pairs of one kind that a sentence names before it counts the rest.
NAMED = 6
WHAT = {
    "gold_accuracy": "Right answers (gold_accuracy)",
    "judge_reward": "The judge's reward (judge_reward)",
    "accuracy_right_shorter": "Accuracy where the right answer is shorter (accuracy_right_shorter)",
}
ACCURACY = {
    "reward": "Accuracy of reward models (accuracy)",
    "policy": "Accuracy of policies by their own rewards (accuracy)",
}


def write_verdict(
    results: Sequence[Mapping[str, Any]],
    comparisons: Sequence[Comparison],
    rankings: Sequence[Mapping[str, Any]],
    equivalence_dz: float,
) -> list[str]:
    """The verdict, a sentence an item: first what may be claimed at all, then measure by measure.

    Every claim has its difference, 95% interval and Holm-adjusted p.

    Args:
        results, comparisons, rankings: the report's blocks.
        equivalence_dz: the margin of equivalence, in standard deviations of the differences on one prompt.
    """
    if not rankings:
        return []
    ordered = sorted(rankings, key=lambda ranking: _place(ranking["metric"]))
    return [
        *_claimable(results, equivalence_dz),
        *(line for ranking in ordered for line in _measure(ranking, _of(ranking, comparisons, results))),
    ]


def _place(metric: str) -> int:
    """Gold first, then the judges, then what a model says of itself."""
    return 0 if metric == "gold_accuracy" else 1 if metric.startswith("judge_reward") else 2


def _claimable(results: Sequence[Mapping[str, Any]], equivalence_dz: float) -> Iterator[str]:
    seeds: dict[str, int] = {}
    for found in results:
        if found["status"] == "done" and found["kind"] != "base" and found["algorithm"] != JUDGE_CELL:
            seeds[method_of(found["cell"])] = seeds.get(method_of(found["cell"]), 0) + 1
    few = [name for name, count in seeds.items() if count < MIN_SEEDS]
    enough = [name for name, count in seeds.items() if count >= MIN_SEEDS]
    if enough:
        yield (
            f"Claims about methods: {', '.join(enough)} ({min(seeds[name] for name in enough)} or more seeds each). "
            "A difference counts when the test over seeds shows it after Holm's adjustment and the interval over "
            "resampled seeds and prompts excludes 0; so does equivalence when that interval lies within the margin."
        )
    if few:
        whose = "" if not enough else f" of {', '.join(few)}"
        yield (
            f"Claims about checkpoints only{whose}: a claim about a method needs at least {MIN_SEEDS} seeds, "
            f"and there {'is 1' if max(seeds[name] for name in few) == 1 else 'are fewer'}. "
            "Another seed may turn what is said of them."
        )
    yield (
        f"Equivalent means within ±{equivalence_dz:g} standard deviations of the differences on one prompt "
        "(TOST, Holm-adjusted); not told apart means that neither a difference nor equivalence was shown."
    )


def _of(
    ranking: Mapping[str, Any], comparisons: Sequence[Comparison], results: Sequence[Mapping[str, Any]]
) -> list[Comparison]:
    """The comparisons of a ranking's measure at the highest level that it allows."""
    kinds = {name: found["kind"] for found in results for name in (found["cell"], method_of(found["cell"]))}
    same = [
        found
        for found in comparisons
        if found["metric"] == ranking["metric"] and (kinds[found["a"]] == "reward") == (ranking["kind"] == "reward")
    ]
    ranked = {row["name"] for row in ranking["methods"]}
    return [
        found
        for found in same
        if found["level"] == ranking["level"] and {method_of(found["a"]), method_of(found["b"])} <= ranked
    ]


def _measure(ranking: Mapping[str, Any], comparisons: Sequence[Comparison]) -> Iterator[str]:
    metric, first = ranking["metric"], ranking["methods"][0]
    what = ACCURACY[ranking["kind"]] if metric == "accuracy" else WHAT.get(metric, metric)
    units = f"{ranking['n']} {'prompts' if ranking['prompts'] == ranking['n'] else 'pairs'}"
    if ranking["prompts"] != ranking["n"]:
        units += f" of {ranking['prompts']} prompts"
    yield (
        f"{what}, {ranking['level']}s, {units}: highest {first['name']} ({number(first['value'])}; "
        f"rank 1 [{first['low']:g}, {first['high']:g}] of {len(ranking['methods'])})."
    )
    told: dict[Decision, list[Comparison]] = {}
    for found in comparisons:
        told.setdefault(decide(found), []).append(found)
    better = [*told.get("higher", []), *map(turned, told.get("lower", []))]
    if better:
        yield f"Higher on {metric}: {_several(list(map(_claim, better)))}."
    if alike := told.get("equivalent"):
        largest = max(found["p_tost_holm"] for found in alike)
        yield f"Equivalent on {metric} (TOST, Holm p up to {p_value(largest)}): {_several(list(map(_pair, alike)))}."
    if unclear := told.get("none"):
        least = min((found["p_holm"] for found in unclear if found["p_holm"] is not None), default=None)
        yield f"Not told apart on {metric} (Holm p from {p_value(least)}): {_several(list(map(_pair, unclear)))}."
    if untested := told.get("undefined"):
        yield f"Too little or too uniform for a test on {metric}: {_several(list(map(_pair, untested)))}."


def _claim(found: Comparison) -> str:
    within = found["margin"] is not None and abs(found["difference"]) < found["margin"]
    small = f", within the margin of {number(found['margin'])}" if within else ""
    return (
        f"{found['a']} over {found['b']} by {number(found['difference'], signed=True)} "
        f"{interval(found['low'], found['high'])}, Holm p {p_value(found['p_holm'])}{small}"
    )


def _pair(found: Comparison) -> str:
    bounds = "" if found["low"] is None else f" {interval(found['low'], found['high'])}"
    return f"{found['a']} and {found['b']} ({number(found['difference'], signed=True)}{bounds})"


def _several(items: Sequence[str]) -> str:
    more = len(items) - NAMED
    return "; ".join(items[:NAMED]) + (f"; and {more} more pairs" if more > 0 else "")
