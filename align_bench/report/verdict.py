"""The verdict in words: three plain sentences, and the numbers behind them, claim by claim."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from align_bench.records import CellId, Comparison, MetricKey
from align_bench.report.claims import Claim
from align_bench.report.decision import decision
from align_bench.report.formatting import interval, number, one_line, p_value, signed, tenths
from align_bench.suite.names import GOLD, JUDGE_CELL, TRY_OUT

if TYPE_CHECKING:
    from align_bench.report.findings import AgainstBase, BesideLonger, Findings, First, Lengths, OfJudge
    from align_bench.report.schema import Alarm, AlarmKind, Ranking, Report, Result

# Pairs of one kind that a sentence names before it counts the rest.
NAMED = 6
WHAT = {
    MetricKey("gold_accuracy"): "Right answers (gold_accuracy)",
    MetricKey("judge_reward"): "The judge's reward (judge_reward)",
    MetricKey("accuracy"): "Accuracy of reward models (accuracy)",
    MetricKey("accuracy_logratio"): "Accuracy of policies by the log-ratio to the base (accuracy_logratio)",
    MetricKey("accuracy_logp_mean"): "Accuracy of policies by the mean log-probability per token (accuracy_logp_mean)",
    MetricKey("accuracy_right_shorter"): "Accuracy where the right answer is shorter (accuracy_right_shorter)",
}


@dataclass(frozen=True, slots=True)
class Verbs:
    """What one policy does that is above the base, several do, or none is shown to; and what those below it do."""

    one: str
    several: str
    infinitive: str
    one_below: str
    several_below: str


VERBS = {
    MetricKey("gold_accuracy"): Verbs(
        "answers more prompts correctly than the base",
        "answer more prompts correctly than the base",
        "answer more prompts correctly than the base",
        "answers fewer",
        "answer fewer",
    ),
    MetricKey("judge_reward"): Verbs(
        "has higher scores by the judge than the base",
        "have higher scores by the judge than the base",
        "have higher scores by the judge than the base",
        "has lower ones",
        "have lower ones",
    ),
}
BY = {
    MetricKey("gold_accuracy"): "by right answers",
    MetricKey("judge_reward"): "by the judge",
    MetricKey("accuracy"): "by accuracy on the labels",
    MetricKey("accuracy_right_shorter"): "where the right answer is the shorter",
}
NAMED = 6  # cells that a line of alarms names beside the first before it counts the rest
GOLD_ALONE = "answers are judged by gold alone, which knows the right ones"
NAMES_WIDTH = 24  # of the names in a plain sentence before it counts the rest, in characters
FEW = 3  # methods that are named one by one
MUCH_LONGER = 2.0  # times the base's words, from which answers are named apart from the others
UNKNOWN_SEEDS = (
    "What another seed would change is unknown, so no interval here is about a method. With five identical methods, "
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


def headline(report: Report, *, short: bool = False) -> list[str]:
    """What stands first wherever a report is shown; the numbers behind it, `report.verdict`, come further down.

    Args:
        report: a report.
        short: say of alarms no more than a small screen has room for.
    """
    told = alarm_notes if short else alarm_lines
    return [*([TRY_OUT] if report.suite.quick else []), *told(report.alarms), *report.summary]


def alarm_lines(found: Iterable[Alarm]) -> list[str]:
    """A line for each kind: the first in a sentence, the others by name and number, and what usually mends it."""
    return [
        f"Alarm, {kind}: {own[0].sentence}.{_likewise(own[1:])} Usual cure: {cure}."
        for (kind, cure), own in _kinds(found)
    ]


def alarm_notes(found: Iterable[Alarm]) -> list[str]:
    """The same for a small screen: whom it is about, the numbers, the threshold and the cure."""
    return [
        f"Alarm, {kind}: {_named(own, 3)}{_beyond(own[0])}. {cure[:1].upper()}{cure[1:]}."
        for (kind, cure), own in _kinds(found)
    ]


def _kinds(found: Iterable[Alarm]) -> list[tuple[tuple[AlarmKind, str], list[Alarm]]]:
    kinds: dict[tuple[AlarmKind, str], list[Alarm]] = {}
    for alarm in found:
        kinds.setdefault((alarm.kind, alarm.cure), []).append(alarm)
    return list(kinds.items())


def _beyond(alarm: Alarm) -> str:
    if alarm.threshold is None or alarm.found is None:
        return ""
    what = {"judge by length": "preferring the longer answer", "judge at chance": "not shown to be above"}
    return f"; {what.get(alarm.kind, 'threshold')} {_small(alarm.threshold)}"


def _small(value: float) -> str:
    """A number, of which one near 0 is not rounded to it."""
    return f"{value:.2g}" if 0 < abs(value) < 0.001 else number(value)


def _likewise(others: Sequence[Alarm]) -> str:
    return f" Likewise: {_named(others, NAMED)}." if others else ""


def _named(found: Sequence[Alarm], most: int) -> str:
    """Whom alarms are about, each with its number; at most so many of them."""
    named = ", ".join(one.about if one.found is None else f"{one.about} ({_small(one.found)})" for one in found[:most])
    more = len(found) - most
    return f"{named}{f' and {more} more' if more > 0 else ''}"


def summarise(found: Findings) -> list[str]:
    """At most three plain sentences: what beats the base, what it costs in length, and how far to trust the judge.

    Of reward models alone: whether they beat preferring the longer answer, and who is first. What the report has no
    record of is left out.

    Args:
        found: the report's findings.
    """
    of_policies = [*map(_against_base, found.base), *(_first(one) for one in found.first if one.kind == "policy")]
    parts = [
        "; ".join(of_policies),
        _lengths(found.lengths) if found.lengths else "",
        _of_judge(found.judge) if found.judge else GOLD_ALONE if found.gold_alone else "",
        _beside_longer(found.beside_longer) if found.beside_longer else "",
        *(_first(one) for one in found.first if one.kind == "reward"),
    ]
    return [f"{part[0].upper()}{part[1:]}." for part in parts if part]


def write_verdict(
    results: Sequence[Result],
    claims: Sequence[Claim],
    rankings: Sequence[Ranking],
    equivalence_dz: float,
    against: Sequence[str] = (),
) -> list[str]:
    """The verdict, a sentence per item: first what may be claimed at all, then measure by measure.

    Every claim has its difference, 95% interval and Holm-adjusted p.

    Args:
        results, claims, rankings: the report's blocks.
        equivalence_dz: the margin of equivalence, in standard deviations of the differences on one prompt.
        against: the only methods, beside the base, that others are compared with; none: each with every other one.
    """
    if not rankings:
        return []
    ordered = sorted(rankings, key=lambda ranking: _place(ranking.metric))
    measures = [(ranking, [one for one in claims if _is_of(one, ranking)]) for ranking in ordered]
    said = [one for _, own in measures for one in own]
    return [
        *_claimable(results, said),
        *(
            [f"Compared with each method: the base, {', '.join(against)}. No other pair is tested (report.against)."]
            if against
            else []
        ),
        f"Equivalent means within ±{equivalence_dz:g} standard deviations of the per-prompt differences "
        "(TOST, Holm-adjusted); inconclusive means that neither a difference nor equivalence was shown. Intervals are "
        "at 95%, not adjusted for the number of tests; Holm's p is.",
        *(line for ranking, own in measures for line in _measure(ranking, own)),
    ]


def _against_base(found: AgainstBase) -> str:
    """Who was shown to be above the base, who below it, and of whom neither was shown."""
    verbs = VERBS[found.metric]
    seeds = "one seed" if found.seeds == 1 else f"{found.seeds} seeds"
    one = len(found.above) == 1
    if found.level == "method":
        who = f"over {seeds}, {_names(found.above) if found.above else 'no method'}"
    else:
        these = "this checkpoint" if one and found.seeds == 1 else "these checkpoints"
        who = f"{these} of {_names(found.above)} ({seeds})" if found.above else f"none of these checkpoints ({seeds})"
        one = one and found.seeds == 1
    if not found.above and found.level == "checkpoint" and len(found.unclear) == found.seeds == 1 and not found.below:
        said = [f"this checkpoint of {found.unclear[0]} ({seeds}) is not shown to {verbs.infinitive}"]
    elif not found.above:
        said = [f"{who} is shown to {verbs.infinitive}"]
    else:
        said = [f"{who} {verbs.one if one else verbs.several}"]
        if found.unclear:
            said.append(f"{_names(found.unclear)} {'is' if len(found.unclear) == 1 else 'are'} not shown to")
    if found.below:
        said.append(f"{_names(found.below)} {verbs.one_below if len(found.below) == 1 else verbs.several_below}")
    return "; ".join(said)


def _first(found: First) -> str:
    """Who is first, or tied first, and over whom its lead was not shown."""
    by = BY.get(found.metric, f"by {found.metric}")
    if len(found.labels) > 1:
        return f"{by}, {_names(found.labels)} are tied first ({number(found.value)} each)"
    first = f"{by}, {found.labels[0]} is first ({number(found.value)})"
    count = len(found.above) + len(found.unclear)
    if found.apart:
        return f"{first}; {_of_some(found, count)}"
    if not found.unclear:
        return f"{first}, shown to be above {'all others' if count > 1 else found.above[0]}"
    if len(found.unclear) <= FEW:
        others = _names(found.unclear)
    else:
        others = f"the other {count}" if len(found.unclear) == count else f"{len(found.unclear)} of the other {count}"
    return f"{first}, but its lead over {others} is not shown"


def _of_some(found: First, count: int) -> str:
    """What is shown of a first one that was compared with some of the others only."""
    if not count:
        return "it was compared with none of the others"
    compared = f"of {count + len(found.apart)} others it was compared with {count}"
    if not found.unclear:
        return f"{compared}, and is shown to be above {'them' if count > 1 else 'it'}"
    others = _names(found.unclear) if len(found.unclear) <= FEW else f"{len(found.unclear)} of them"
    return f"{compared}; its lead over {others} is not shown"


def _lengths(found: Lengths) -> str:
    """How long the answers are, as multiples of the base's; and whom the judge prefers at equal length."""
    groups: dict[bool, list[str]] = {}
    for label, times in found.times.items():
        groups.setdefault(times >= MUCH_LONGER, []).append(label)
    (first, *others) = groups.values()
    said = f"answers of {_names(first)} are {_times(found, first)} as long as the base's ({tenths(found.base)} words)"
    said += "".join(f", those of {_names(labels)} {_times(found, labels)}" for labels in others)
    if not found.controlled:
        return said
    only = "only " if len(found.preferred) < len(found.controlled) else ""
    whose = f"prefers {only}the answers of {_names(found.preferred)}"
    prefers = whose if found.preferred else "is not shown to prefer any of them"
    return f"{said}; at equal length the judge {prefers} to the base's (95% intervals, not adjusted)"


def _times(found: Lengths, labels: Sequence[str]) -> str:
    least, most = (f"{bound(found.times[label] for label in labels):.1f}" for bound in (min, max))
    if least == most == "1.0":
        return "about"
    return f"{least} times" if least == most else f"{least} to {most} times"


def _of_judge(found: OfJudge) -> str:
    """What speaks against the judge, and what for it."""
    said = []
    if found.rewarded:
        said.append(f"is the very reward that {_names(found.rewarded)} learned from or picked by")
    if found.padded:
        said.append("prefers padded answers")
    if found.pairs:
        other = "gold" if found.other == GOLD else f"the judge {found.other}"
        count = f"{found.reversed} of {found.pairs} pairs" if found.reversed else f"all {found.pairs} pairs"
        count = count if found.pairs > 1 else "the one pair"
        order = f"in the opposite order to {other}" if found.reversed else f"as {other} does"
        said.append(f"ranks {count} of methods {order}")
    if found.at_chance:
        said.append(f"agrees with the labels no better than chance ({number(found.accuracy)})")
    elif found.beside_longer is not None:
        does = {
            "above": "agrees with the labels more often",
            "below": "agrees with the labels less often",
            "none": "is not shown to agree with the labels more often",
        }[found.beside_longer]
        rates = f"({number(found.accuracy)}, {number(found.longer)})"
        said.append(f"{does} than preferring the longer answer does {rates}")
    if not said:
        return ""
    return ("read the judge's scores with care: it " if found.doubtful else "the judge ") + _joined(said)


def _beside_longer(found: BesideLonger) -> str:
    """Reward models beside the baseline that needs no model."""
    groups = (("above", found.above), ("below", found.below), ("not shown to be above", found.unclear))
    said = [f"{what}: {_names(own)}" for what, own in groups if own]
    return f"accuracy beside that of preferring the longer answer: {'; '.join(said)}"


def _names(labels: Sequence[str]) -> str:
    """As many names as a sentence has room for, and how many more there are."""
    named = [label for place, label in enumerate(labels) if len(", ".join(labels[: place + 1])) <= NAMES_WIDTH]
    more = len(labels) - max(1, len(named))
    return _joined(labels) if more == 0 else f"{', '.join(labels[: max(1, len(named))])} and {more} more"


def _joined(parts: Sequence[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


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
    what = WHAT.get(metric, str(metric))
    if ranking.prompts == ranking.n:
        units = f"{ranking.n} prompts"
    else:
        units = f"{ranking.n} pairs of {ranking.prompts} prompts"
    # What is shown as the same number is a tie to the reader, though it may differ in a later digit.
    best = [one for one in ranking.methods if number(one.value) == number(first.value)]
    which = "highest" if len(best) == 1 else "tied highest"
    if ranking.level == "checkpoint":
        what_of = "checkpoint" if all(one.seeds == 1 for one in best) else "mean over checkpoint"
        plural = len(best) > 1 or any(one.seeds > 1 for one in best)
        which = f"{which} {what_of}{'s' if plural else ''}"
    bounds = "" if first.low is None or first.high is None else f" [{first.low:g}, {first.high:g}]"
    alone = f"({number(first.value)}; rank {first.rank:g}{bounds} of {len(ranking.methods)})"
    place = alone if len(best) == 1 else f"({number(first.value)} each; {len(best)} of {len(ranking.methods)})"
    return f"{what}, {ranking.level}s, {units}: {which} {_listed([one.method for one in best])} {place}."


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
    return "; ".join(items[:NAMED]) + (f"; and {more} more {'pair' if more == 1 else 'pairs'}" if more > 0 else "")
