"""What a report finds, for people: what beats the base, what it costs in length, and how far to trust the judge.

Records alone; `report.verdict` puts them into words. Each rests on the report's claims and records, and decides nothing
by a test of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from align_bench.records import CellId, Estimate, Kind, Level, MetricKey
from align_bench.report.claims import Claim
from align_bench.report.formatting import number
from align_bench.suite.names import GOLD

if TYPE_CHECKING:
    from align_bench.report.schema import JudgeFacts, Report


@dataclass(frozen=True, slots=True)
class AgainstBase:
    """What was shown of policies and the base, by the metric that ranks them.

    Attributes:
        metric: gold accuracy, or the judge's score.
        level: whether that is about methods, or about their checkpoints.
        seeds: of the method with the fewest.
        above, below: labels of those that were shown to be above the base, or below it.
        unclear: those of which neither was shown.
    """

    metric: MetricKey
    level: Level
    seeds: int
    above: tuple[str, ...]
    below: tuple[str, ...]
    unclear: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class First:
    """Who is first by a metric.

    Attributes:
        metric, kind: the metric, and of whom.
        labels: the first one, or all that are tied: whose values are shown as the same number.
        value: the number.
        above, unclear: of a single first one, whom it was shown to be above, and whom it was not.
        apart: whom it was not compared with, where the suite says with whom methods are.
    """

    metric: MetricKey
    kind: Kind
    labels: tuple[str, ...]
    value: float
    above: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lengths:
    """The length of answers beside the base's.

    Attributes:
        base: words per answer of the base.
        times: label → words per answer, as a multiple of that; the longest first.
        preferred: whose length-controlled win rate has a 95% interval above ½, of every checkpoint.
        controlled: of whom there is such an interval.
    """

    base: float
    times: Mapping[str, float]
    preferred: tuple[str, ...]
    controlled: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OfJudge:
    """What speaks for and against the main judge.

    Attributes:
        name: its name.
        beside_longer: its agreement with the labels beside that of preferring the longer answer; None without a test.
        accuracy, longer: both; None without them.
        padded: whether it scores an answer higher for an appended filler sentence; None where that was not tried.
        other: `gold`, or the judge that it is held against; empty without one.
        reversed, pairs: pairs of methods that the two rank the other way round, of how many.
        rewarded: the policies that learned from this very reward, or picked by it.
    """

    name: str
    beside_longer: Literal["above", "below", "none"] | None
    accuracy: float | None
    longer: float | None
    padded: bool | None
    other: str
    reversed: int
    pairs: int
    rewarded: tuple[str, ...]

    @property
    def at_chance(self) -> bool:
        """Whether it agrees with the labels no more often than a coin."""
        return self.accuracy is not None and self.accuracy <= 0.5

    @property
    def doubtful(self) -> bool:
        """Whether anything speaks against it."""
        return bool(
            self.at_chance or self.beside_longer in ("none", "below") or self.padded or self.reversed or self.rewarded
        )


@dataclass(frozen=True, slots=True)
class BesideLonger:
    """Reward models beside preferring the longer answer: labels of those shown above, below, and neither."""

    above: tuple[str, ...]
    below: tuple[str, ...]
    unclear: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """All of them; None, or none, where the report has no record of it.

    Attributes:
        base: of each level.
        first: by the metric that ranks policies; of reward models by each measure.
        lengths, judge: of the policies' answers, and of who scores them.
        beside_longer: of reward models, where there are no policies.
        gold_alone: whether policies are ranked by gold, and no judge scored them.
    """

    base: tuple[AgainstBase, ...]
    first: tuple[First, ...]
    lengths: Lengths | None
    judge: OfJudge | None
    beside_longer: BesideLonger | None
    gold_alone: bool


def find(report: Report) -> Findings:
    """The findings of a report with its leaderboard and claims."""
    if report.leaderboard:
        first = _first_policy(report)
        return Findings(
            base=tuple(_against_base(report)),
            first=(first,) if first else (),
            lengths=_lengths(report),
            judge=_of_judge(report),
            beside_longer=None,
            gold_alone=all(row.gold.mean is not None and row.judge.mean is None for row in report.leaderboard),
        )
    return Findings((), tuple(_first_rewards(report)), None, None, _beside_longer(report), gold_alone=False)


def _against_base(report: Report) -> Iterable[AgainstBase]:
    rows = [row for row in report.leaderboard if row.kind == "policy" and row.ranked_by is not None]
    bases = {row.method for row in report.leaderboard if row.kind == "base"}
    tested = {method for one in report.claims for method in (one.a.method, one.b.method) if _ends(one) & bases}
    levels: tuple[Level, ...] = ("method", "checkpoint")
    for level in levels:
        own = [row for row in rows if row.level == level and row.method in tested]
        if not own or own[0].ranked_by is None:
            continue
        metric = own[0].ranked_by
        above = [row.label for row in own if metric in row.above_base]
        below = [row.label for row in own if metric in row.below_base]
        yield AgainstBase(
            metric=metric,
            level=level,
            seeds=min(len(row.seeds) for row in own),
            above=tuple(above),
            below=tuple(below),
            unclear=tuple(row.label for row in own if row.label not in (*above, *below)),
        )


def _ends(claim: Claim) -> set[CellId]:
    return {claim.a.method, claim.b.method}


def _first_policy(report: Report) -> First | None:
    """By the metric of the leaderboard; of two policies or more. What is shown of the base is a finding of its own."""
    rows = [row for row in report.leaderboard if row.ranked_by is not None]
    metric = rows[0].ranked_by if rows else None
    if metric is None or sum(row.kind == "policy" for row in rows) < 2:
        return None
    named = {row.method: row.label for row in rows}
    of = {row.method: row.gold if metric.name == "gold_accuracy" else row.judge for row in rows}
    values = {row.method: of[row.method].mean for row in rows if row.kind == "policy" or row.rank == 1}
    return _first(metric, "policy", named, values, report)


def _first_rewards(report: Report) -> Iterable[First]:
    named = {row.method: row.label for row in report.reward_leaderboard}
    for ranking in report.rankings:
        if ranking.kind == "reward" and len(ranking.methods) > 1:
            values = {row.method: row.value for row in ranking.methods}
            found = _first(ranking.metric, "reward", named, values, report)
            if found is not None:
                yield found


def _first(
    metric: MetricKey,
    kind: Kind,
    named: Mapping[CellId, str],
    values: Mapping[CellId, float | None],
    report: Report,
) -> First | None:
    known = {method: value for method, value in values.items() if value is not None}
    if not known:
        return None
    highest = max(known.values())
    first = [method for method, value in known.items() if number(value) == number(highest)]
    labels = tuple(named.get(method, str(method)) for method in first)
    if len(first) > 1:
        return First(metric, kind, labels, highest)
    about = [one for one in report.claims if (one.metric, one.kind) == (metric, kind)]
    others = [method for method in known if method not in first]
    above = [method for method in others if _shown(first[0], method, about)]
    apart: list[CellId] = []
    if compared_with(report):
        met = {method for one in about if first[0] in _ends(one) for method in _ends(one)}
        apart = [method for method in others if method not in met]
    unclear = [method for method in others if method not in (*above, *apart)]
    groups = (tuple(named.get(method, str(method)) for method in group) for group in (above, unclear, apart))
    return First(metric, kind, labels, highest, *groups)


def compared_with(report: Report) -> tuple[str, ...]:
    """The only methods, beside the base, that the suite's others are compared with; none: each with every other one."""
    found = report.suite.settings.get("report")
    named = found.get("against") if isinstance(found, Mapping) else None
    return tuple(map(str, named)) if isinstance(named, list) else ()


def _shown(a: CellId, b: CellId, claims: Iterable[Claim]) -> bool:
    """Whether every claim about the two, of the methods or of each two of their checkpoints, has a the higher one."""
    own = [one for one in claims if _ends(one) == {a, b}]
    return bool(own) and all(one.decision == "higher" and one.a.method == a for one in own)


def _lengths(report: Report) -> Lengths | None:
    base = next((row.words.mean for row in report.leaderboard if row.kind == "base"), None)
    rows = [row for row in report.leaderboard if row.kind == "policy"]
    known = {row.label: row.words.mean / base for row in rows if base and row.words.mean is not None}
    if base is None or not known:
        return None
    controlled = {
        row.label: [
            one.metrics.win_rate_length_controlled
            for one in report.results
            if one.cell.method == row.method and one.status == "done"
        ]
        for row in rows
    }
    bounded = {label: own for label, own in controlled.items() if own and all(one.low is not None for one in own)}
    return Lengths(
        base=base,
        times=dict(sorted(known.items(), key=lambda item: -item[1])),
        preferred=tuple(label for label, own in bounded.items() if all(_above_half(one) for one in own)),
        controlled=tuple(bounded),
    )


def _above_half(one: Estimate) -> bool:
    return one.low is not None and one.low > 0.5


def _of_judge(report: Report) -> OfJudge | None:
    """Of the main judge; gold, which knows the right answers, is not in question."""
    judge = next((one for one in report.judges if one.name == report.policies.judge), None)
    if judge is None or judge.name == GOLD:
        return None
    scorers = _scorers(judge)
    beside = next((one for one in report.against_longer if one.scorer in scorers), None)
    audit = next((one for one in report.audit if one.scorer in scorers), None)
    shifts = [one.shift for one in audit.metrics.edits if one.edit == "filler"] if audit else []
    agreed = sorted((one for one in report.agreement if one.a == judge.name), key=lambda one: one.b != GOLD)
    labels = {row.method: row.label for row in report.leaderboard}
    rewarded = dict.fromkeys(labels.get(cell.method, str(cell.method)) for cell in judge.rewarded)
    return OfJudge(
        name=judge.name,
        beside_longer=None if beside is None or beside.decision == "undefined" else beside.decision,
        accuracy=beside.accuracy.value if beside else None,
        longer=beside.longer_wins.value if beside else None,
        padded=shifts[0].low > 0 if shifts and shifts[0].low is not None else None,
        other=agreed[0].b if agreed else "",
        reversed=len(agreed[0].reversed) if agreed else 0,
        pairs=agreed[0].methods * (agreed[0].methods - 1) // 2 if agreed else 0,
        rewarded=tuple(rewarded),
    )


def _scorers(judge: JudgeFacts) -> set[str]:
    """How `audit` and `against_longer` call it: by its cell, or all members of an ensemble together."""
    return {str(name) for cell in judge.cells for name in (cell, cell.method)} or {judge.name}


def _beside_longer(report: Report) -> BesideLonger | None:
    rows = [row for row in report.reward_leaderboard if row.against_longer is not None]
    if not rows:
        return None

    def of(decision: str) -> tuple[str, ...]:
        return tuple(row.label for row in rows if row.against_longer == decision)

    return BesideLonger(of("above"), of("below"), of("none"))
