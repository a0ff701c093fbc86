"""The verdict in words: what is better than what, what is inconclusive, and what the seeds allow to claim."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from align_bench.records import CellId, Comparison, Kind, MetricKey
from align_bench.report.claims import Claim
from align_bench.report.decision import decision
from align_bench.report.formatting import interval, number, one_line, p_value, signed
from align_bench.suite.names import JUDGE_CELL

if TYPE_CHECKING:
    from align_bench.report.schema import Ranking, Result

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
UNKNOWN_SEEDS = (
    "What another seed would change is unknown, so no interval here speaks of a method. With five identical methods, "
    "500 prompts and a seed noise of 10% of that of prompts, about three in four suites of one seed show some "
    "difference (benchmarks/false_claims.py). Three seeds, or a declared report.seed_noise, tell more."
)


def verdict(found: Comparison) -> str:
    """One comparison in words: who is higher, that both are equivalent, or that neither was shown."""
    decided = decision(found)
    if decided in ("higher", "lower"):
        who = one_line(found.a if decided == "higher" else found.b)
        return f"{who} higher" if found.level == "method" else f"{who} checkpoint higher"
    return {"equivalent": "equivalent", "none": "inconclusive", "undefined": "undefined"}[decided]


def write_verdict(
    results: Sequence[Result], claims: Sequence[Claim], rankings: Sequence[Ranking], equivalence_dz: float
) -> list[str]:
    """The verdict, a sentence per item: first what may be claimed at all, then measure by measure.

    Every claim has its difference, 95% interval and Holm-adjusted p.

    Args:
        results, claims, rankings: the report's blocks.
        equivalence_dz: the margin of equivalence, in standard deviations of the differences on one prompt.
    """
    if not rankings:
        return []
    ordered = sorted(rankings, key=lambda ranking: _place(ranking.metric))
    measures = [(ranking, [one for one in claims if _is_of(one, ranking)]) for ranking in ordered]
    said = [one for _, own in measures for one in own]
    return [
        *_claimable(results, said),
        f"Equivalent means within ±{equivalence_dz:g} standard deviations of the per-prompt differences "
        "(TOST, Holm-adjusted); inconclusive means that neither a difference nor equivalence was shown. Intervals are "
        "at 95%, not adjusted for the number of tests; Holm's p is.",
        *(line for ranking, own in measures for line in _measure(ranking, own)),
    ]


def _place(metric: MetricKey) -> int:
    """Gold first, then the judges, then what a model says of itself."""
    return {"gold_accuracy": 0, "judge_reward": 1}.get(metric.name, 2)


def _is_of(claim: Claim, ranking: Ranking) -> bool:
    return (claim.metric, claim.kind) == (ranking.metric, ranking.kind)


def _claimable(results: Sequence[Result], claims: Sequence[Claim]) -> Iterator[str]:
    from align_bench.stats.seeds import MIN_SEEDS  # numpy, for which a report that is only shown need not wait

    trained = [one for one in results if one.kind != "base" and one.algorithm != JUDGE_CELL]
    seeds = Counter(one.cell.method for one in trained if one.status == "done")
    few = [method for method, count in seeds.items() if count < MIN_SEEDS]
    enough = [method for method, count in seeds.items() if count >= MIN_SEEDS]
    if enough:
        yield (
            f"Claims about methods: {_listed(enough)} ({min(seeds[method] for method in enough)} or more seeds each). "
            "A difference counts when the test over seeds and prompts together is significant after Holm's adjustment."
        )
    if few:
        whose = "" if not enough else f" of {_listed(few)}"
        yield (
            f"Claims about checkpoints only{whose}: a claim about a method needs at least {MIN_SEEDS} seeds, "
            f"and there {'is 1' if max(seeds[method] for method in few) == 1 else 'are fewer'}. "
            "These may not hold under another seed."
        )
        yield _noise([one for one in claims if one.seed_noise is not None])


def _noise(known: Sequence[Claim]) -> str:
    """What is known of the seeds where there are too few of them."""
    if not known:
        return UNKNOWN_SEEDS
    sizes = sorted(
        {f"{one.seed_noise:.0%}": one.seed_noise for one in known if one.seed_noise is not None}.items(),
        key=lambda item: item[1],
    )
    range_of = sizes[0][0] if len(sizes) == 1 else f"{sizes[0][0]} to {sizes[-1][0]}"
    source = "declared" if known[0].seed_noise_declared else "of this suite's own seeds"
    return (
        "Between methods: the interval that allows for another seed too, at 95% for all of a metric together, with a "
        f"seed noise ({source}) of {range_of} of the standard deviation of the per-prompt differences. Where it holds "
        "0, nothing is shown between the methods."
    )


def _listed(methods: Sequence[CellId]) -> str:
    return ", ".join(map(str, methods))


def _measure(ranking: Ranking, claims: Sequence[Claim]) -> Iterator[str]:
    metric = ranking.metric
    yield _highest(ranking)
    checkpoints = [one for one in claims if one.level == "checkpoint"]
    yield from _decided(str(metric), [one for one in claims if one.level == "method"])
    yield from _decided(f"{metric}, these checkpoints ({_seeds(checkpoints)})", checkpoints)


def _highest(ranking: Ranking) -> str:
    metric, first = ranking.metric, ranking.methods[0]
    what = ACCURACY[ranking.kind] if metric == MetricKey("accuracy") else WHAT.get(metric, str(metric))
    if ranking.prompts == ranking.n:
        units = f"{ranking.n} prompts"
    else:
        units = f"{ranking.n} pairs of {ranking.prompts} prompts"
    best = [one for one in ranking.methods if one.rank == first.rank]
    which = "highest" if len(best) == 1 else "tied highest"
    if ranking.level == "checkpoint":
        what_of = "checkpoint" if all(one.seeds == 1 for one in best) else "mean over checkpoint"
        plural = len(best) > 1 or any(one.seeds > 1 for one in best)
        which = f"{which} {what_of}{'s' if plural else ''}"
    bounds = "" if first.low is None or first.high is None else f" [{first.low:g}, {first.high:g}]"
    return (
        f"{what}, {ranking.level}s, {units}: {which} {_listed([one.method for one in best])} "
        f"({number(first.value)}; rank {first.rank:g}{bounds} of {len(ranking.methods)})."
    )


def _seeds(claims: Sequence[Claim]) -> str:
    seeds = sorted({seed for one in claims for seed in one.seeds})
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _decided(on: str, claims: Sequence[Claim]) -> Iterator[str]:
    """A sentence for each decision that was made of these claims."""
    by_decision: dict[str, list[Claim]] = {}
    for one in claims:
        by_decision.setdefault(one.decision, []).append(one)
    if better := by_decision.get("higher"):
        yield f"Higher on {on}: {_several(list(map(_higher, better)))}."
    if alike := by_decision.get("equivalent"):
        largest = max(one.p_tost_holm for one in alike if one.p_tost_holm is not None)
        yield f"Equivalent on {on} (TOST, Holm p up to {p_value(largest)}): {_several(list(map(_pair, alike)))}."
    if unclear := by_decision.get("none"):
        least = min((one.p_holm for one in unclear if one.p_holm is not None), default=None)
        yield f"Inconclusive on {on} (Holm p from {p_value(least)}): {_several(list(map(_pair, unclear)))}."
    if untested := by_decision.get("undefined"):
        yield f"Too little data or variation for a test on {on}: {_several(list(map(_pair, untested)))}."


def _higher(claim: Claim) -> str:
    within = claim.difference is not None and claim.margin is not None and abs(claim.difference) < claim.margin
    small = f", within the margin of {number(claim.margin)}" if within else ""
    return (
        f"{claim.a} over {claim.b} by {signed(claim.difference)} {interval(claim.low, claim.high)}, "
        f"Holm p {p_value(claim.p_holm)}{small}{_of_methods(claim)}"
    )


def _of_methods(claim: Claim) -> str:
    """How much of a difference between two checkpoints is one between their methods."""
    if claim.between_methods is None or claim.seed_share is None:
        return ""
    bounds = interval(claim.method_low, claim.method_high)
    shown = "" if claim.between_methods else ": not shown between methods"
    return f" (between methods {bounds}, {claim.seed_share:.0%} of its variance from seeds{shown})"


def _pair(claim: Claim) -> str:
    bounds = "" if claim.low is None else f" {interval(claim.low, claim.high)}"
    return f"{claim.a} and {claim.b} ({signed(claim.difference)}{bounds})"


def _several(items: Sequence[str]) -> str:
    more = len(items) - NAMED
    return "; ".join(items[:NAMED]) + (f"; and {more} more pairs" if more > 0 else "")
