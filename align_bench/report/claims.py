"""What the comparisons allow to claim, as records; `report.verdict` puts them into words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from align_bench.records import CellId, Comparison, Kind, Level, MetricKey
from align_bench.report.decision import decision, turned

if TYPE_CHECKING:
    from align_bench.report.schema import Result


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim, about two methods or about two checkpoints.

    Attributes:
        level: what it is about.
        kind: `reward` of reward models; `policy` of policies and the base.
        metric, unit: what it is on.
        decision: whether a is higher, both are equivalent, neither was shown, or there was no test.
        a, b: methods, or cells; a is the higher one where one is.
        seeds: of the trained checkpoints behind it.
        difference, low, high: mean of a − b and its 95% interval.
        p_holm, p_tost_holm, margin, family, n, prompts: as of the `Comparison`.
        method_low, method_high, seed_share, seed_noise, seed_noise_declared: as of the `Comparison`: what one seed of
            each says of their methods.
    """

    level: Level
    kind: Kind
    metric: MetricKey
    unit: str
    decision: Literal["higher", "equivalent", "none", "undefined"]
    a: CellId
    b: CellId
    seeds: tuple[int, ...]
    difference: float | None
    low: float | None
    high: float | None
    p_holm: float | None
    p_tost_holm: float | None
    margin: float | None
    family: int
    n: int
    prompts: int
    method_low: float | None = None
    method_high: float | None = None
    seed_share: float | None = None
    seed_noise: float | None = None
    seed_noise_declared: bool | None = None

    @property
    def between_methods(self) -> bool | None:
        """Whether the interval for the methods of two checkpoints excludes 0; None where there is none."""
        if self.method_low is None or self.method_high is None:
            return None
        return not self.method_low <= 0 <= self.method_high


def claims(results: Sequence[Result], comparisons: Sequence[Comparison]) -> list[Claim]:
    """The claims of a report: each comparison of two methods, and of their checkpoints where seeds allow no other.

    Args:
        results, comparisons: the report's.
    """
    known = {one.cell: one for one in results}
    kinds = {cell: one.kind for one in results for cell in (one.cell, one.cell.method)}
    of_methods = {(one.metric, frozenset((one.a, one.b))) for one in comparisons if one.level == "method"}
    return [
        _claim(one, "reward" if kinds[one.a] == "reward" else "policy", known)
        for one in comparisons
        if one.level == "method" or (one.metric, frozenset((one.a.method, one.b.method))) not in of_methods
    ]


def _claim(comparison: Comparison, kind: Kind, known: Mapping[CellId, Result]) -> Claim:
    decided = decision(comparison)
    if decided == "lower":
        comparison, decided = turned(comparison), "higher"
    return Claim(
        level=comparison.level,
        kind=kind,
        metric=comparison.metric,
        unit=comparison.unit,
        decision=decided,
        a=comparison.a,
        b=comparison.b,
        seeds=tuple(sorted(set(_seeds(comparison, known)))),
        difference=comparison.difference,
        low=comparison.low,
        high=comparison.high,
        p_holm=comparison.p_holm,
        p_tost_holm=comparison.p_tost_holm,
        margin=comparison.margin,
        family=comparison.family,
        n=comparison.n,
        prompts=comparison.prompts,
        method_low=comparison.method_low,
        method_high=comparison.method_high,
        seed_share=comparison.seed_share,
        seed_noise=comparison.seed_noise,
        seed_noise_declared=comparison.seed_noise_declared,
    )


def _seeds(comparison: Comparison, known: Mapping[CellId, Result]) -> Iterator[int]:
    ends = {comparison.a, comparison.b}
    for cell, one in known.items():
        behind = cell in ends if comparison.level == "checkpoint" else cell.method in ends
        if behind and one.kind != "base" and one.status == "done":
            yield one.seed
