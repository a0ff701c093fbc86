"""The leaderboard: a row per method, the best first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Literal

from align_bench.records import CellId, Estimate, Kind, Level, MetricKey
from align_bench.report.claims import Claim
from align_bench.report.labels import labels
from align_bench.report.schema import (
    AgainstLonger,
    LeaderboardRow,
    OverSeeds,
    Result,
    RewardModelRow,
    WinRate,
)
from align_bench.suite.names import JUDGE_CELL

GOLD, JUDGE = MetricKey("gold_accuracy"), MetricKey("judge_reward")
MARKED = (GOLD, JUDGE)
ROUNDING = 1e-9  # values that differ by less are tied


def leaderboard(
    results: Sequence[Result], claims: Sequence[Claim], win_rates: Sequence[WinRate]
) -> list[LeaderboardRow]:
    """Policies and the base, a row per method with its varying parameters.

    Gold accuracy decides the order where every row has it, since it is what the labels and the judge only stand for;
    otherwise the main judge's mean score does. Equal values share a rank. A method without a finished cell has no row,
    and the base is not ranked alone.

    Args:
        results, claims: the report's.
        win_rates: of `policies`.
    """
    cells = _by_method(results, "policy", "base")
    base = next((method for method, own in cells.items() if own[0].kind == "base"), None)
    if len(cells) == (base is not None):
        return []
    named = labels(one.cell for one in results if one.kind != "reward")
    rows = [
        LeaderboardRow(
            method=method,
            label=named[method],
            kind=own[0].kind,
            seeds=[one.seed for one in own],
            unfinished_cells=_unfinished(results, method),
            rank=None,
            ranked_by=None,
            judge=_over(own, lambda one: one.metrics.judge_reward_mean),
            gold=_over(own, lambda one: one.metrics.gold_accuracy),
            win_rate=_win_rate(method, base, own, win_rates),
            win_rate_length_controlled=_over(own, lambda one: one.metrics.win_rate_length_controlled),
            words=_over(own, lambda one: one.metrics.length_words),
            unfinished=_over(own, lambda one: one.metrics.unfinished_share),
            kl=_over(own, lambda one: one.metrics.kl),
            seconds=_over(own, _seconds),
            level="method" if any(one.level == "method" for one in _against(method, base, claims)) else "checkpoint",
            above_base=_shown(method, base, own, claims, 0),
            below_base=_shown(method, base, own, claims, 1),
        )
        for method, own in cells.items()
    ]
    by_gold = all(row.gold.mean is not None for row in rows)
    ranks = _ranks([row.gold.mean if by_gold else row.judge.mean for row in rows])
    ranked = [
        row.model_copy(update={"rank": rank, "ranked_by": GOLD if by_gold else JUDGE}) if rank is not None else row
        for row, rank in zip(rows, ranks, strict=True)
    ]
    return sorted(ranked, key=lambda row: (row.rank is None, row.rank or 0, -(row.judge.mean or 0.0)))


def reward_leaderboard(results: Sequence[Result], against_longer: Sequence[AgainstLonger]) -> list[RewardModelRow]:
    """Reward models, a row per method; the judge is no method.

    Accuracy against the right answers decides the order where every row has it, otherwise that against the labels.

    Args:
        results, against_longer: the report's.
    """
    cells = _by_method(results, "reward")
    named = labels(one.cell for one in results if one.kind == "reward" and one.algorithm != JUDGE_CELL)
    rows = [
        RewardModelRow(
            method=method,
            label=named[method],
            seeds=[one.seed for one in own],
            unfinished_cells=_unfinished(results, method),
            rank=None,
            ranked_by=None,
            accuracy=_over(own, lambda one: one.metrics.accuracy),
            accuracy_gold=_over(own, lambda one: one.metrics.accuracy_gold_choice),
            accuracy_right_shorter=_over(own, lambda one: one.metrics.accuracy_right_shorter),
            ties=_over(own, lambda one: one.metrics.tie_rate),
            seconds=_over(own, _seconds),
            against_longer=_beside_longer(own, against_longer),
        )
        for method, own in cells.items()
    ]
    by_gold = all(row.accuracy_gold.mean is not None for row in rows)
    ranks = _ranks([row.accuracy_gold.mean if by_gold else row.accuracy.mean for row in rows])
    metric = MetricKey("accuracy_gold_choice" if by_gold else "accuracy")
    ranked = [
        row.model_copy(update={"rank": rank, "ranked_by": metric}) if rank is not None else row
        for row, rank in zip(rows, ranks, strict=True)
    ]
    return sorted(ranked, key=lambda row: (row.rank is None, row.rank or 0))


def _by_method(results: Sequence[Result], *kinds: Kind) -> dict[CellId, list[Result]]:
    """Method → its finished cells, in the results' order."""
    found: dict[CellId, list[Result]] = {}
    for one in results:
        if one.kind in kinds and one.status == "done" and one.algorithm != JUDGE_CELL:
            found.setdefault(one.cell.method, []).append(one)
    return found


def _unfinished(results: Sequence[Result], method: CellId) -> int:
    return sum(one.cell.method == method and one.status != "done" for one in results)


def _over(cells: Sequence[Result], metric: Callable[[Result], Estimate]) -> OverSeeds:
    """A metric's mean over cells that differ in their seed alone."""
    found = [one for one in map(metric, cells) if one.value is not None]
    values = [one.value for one in found if one.value is not None]
    if not values:
        return OverSeeds()
    alone = found[0] if len(found) == 1 else Estimate(None)
    return OverSeeds(
        mean=fmean(values), sd=stdev(values) if len(values) > 1 else None, low=alone.low, high=alone.high, n=len(values)
    )


def _seconds(one: Result) -> Estimate:
    return Estimate(None if one.cost is None else one.cost.seconds)


def _win_rate(method: CellId, base: CellId | None, cells: Sequence[Result], win_rates: Iterable[WinRate]) -> Estimate:
    """Against the base: over seeds and prompts where the report has that, else the one checkpoint's."""
    if method == base:
        return Estimate(None)
    for one in win_rates:
        if one.level == "method" and (one.a, one.b) == (method, base):
            return one.rate
    own = [one.metrics.win_rate_vs_base for one in cells]
    return own[0] if len(own) == 1 else Estimate(_over(cells, lambda one: one.metrics.win_rate_vs_base).mean)


def _against(method: CellId, base: CellId | None, claims: Iterable[Claim]) -> list[Claim]:
    """The claims about a policy's method, or its checkpoints, and the base."""
    return [one for one in claims if one.kind == "policy" and {one.a.method, one.b.method} == {method, base}]


def _shown(
    method: CellId, base: CellId | None, cells: Sequence[Result], claims: Iterable[Claim], side: Literal[0, 1]
) -> list[MetricKey]:
    """On what it was shown to be above the base (side 0) or below it (side 1).

    A claim about the method decides; without one, each of its checkpoints must have been shown to be.
    """
    own = _against(method, base, claims)
    found = []
    for metric in MARKED:
        higher = [one for one in own if one.metric == metric and one.decision == "higher"]
        wanted: Mapping[Level, int] = {"method": 1, "checkpoint": len(cells)}
        shown = [one.level for one in higher if (one.a, one.b)[side].method == method]
        if shown and len(shown) == wanted[shown[0]]:
            found.append(metric)
    return found


def _beside_longer(
    cells: Sequence[Result], against_longer: Sequence[AgainstLonger]
) -> Literal["above", "below", "none"] | None:
    """What each of the checkpoints was shown to be beside preferring the longer answer; None without a test of all."""
    known = {one.scorer: one.decision for one in against_longer}
    found = [known.get(one.name, "undefined") for one in cells]
    if "undefined" in found:
        return None
    return "above" if set(found) == {"above"} else "below" if set(found) == {"below"} else "none"


def _ranks(values: Sequence[float | None]) -> list[int | None]:
    """1 for the highest; equal values have the same rank, and the next one counts them all."""
    known = [value for value in values if value is not None]
    return [
        None if value is None else 1 + sum(other > value and not tied(other, value) for other in known)
        for value in values
    ]


def tied(one: float, other: float) -> bool:
    """Whether two values differ by rounding alone."""
    return math.isclose(one, other, rel_tol=ROUNDING, abs_tol=ROUNDING)
