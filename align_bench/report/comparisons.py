"""The tested differences between cells, and between methods where seeds allow it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from align_bench.records import Comparison, Level
from align_bench.report.cells import GOLD, Cell, judge_metric
from align_bench.report.naming import method_of
from align_bench.stats.paired import Difference, holm, mcnemar_exact, paired_t
from align_bench.stats.seeds import MIN_SEEDS, against_fixed, welch

Values = Mapping[Hashable, float]
LEVELS: tuple[Level, ...] = ("checkpoint", "method")


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric of the cells that it may be compared among.

    Attributes:
        metric: its name in the report.
        values: cell id → pair or prompt → value; the base, if it is among them, last.
        binary: whether the values are right or wrong (or a tie), so that McNemar's test applies.
    """

    metric: str
    values: Mapping[str, Values]
    binary: bool


def compare_all(cells: Sequence[Cell], judges: Sequence[str]) -> list[Comparison]:
    """Every pair of cells on every measure they share, then every pair of methods.

    Holm's adjustment takes all tests of a level as one family: the many tests of checkpoints must not drown the few
    claims about methods. The base stands last in its pairs, so that a positive difference is a gain over it.
    """
    done = [cell for cell in cells if cell.outcome.status == "done"]
    measures = list(_measures(sorted(done, key=lambda cell: cell.outcome.kind == "base"), judges))
    found = [comparison for measure in measures for comparison in _between_checkpoints(measure)]
    found += [comparison for measure in measures for comparison in _between_methods(measure, done)]
    return [one for level in LEVELS for one in _adjusted([one for one in found if one.level == level])]


def _adjusted(family: Sequence[Comparison]) -> list[Comparison]:
    p_values = holm([comparison.p for comparison in family])
    return [replace(comparison, p_holm=p) for comparison, p in zip(family, p_values, strict=True)]


def _measures(cells: Sequence[Cell], judges: Sequence[str]) -> Iterator[Measure]:
    rewards = [cell for cell in cells if cell.outcome.kind == "reward"]
    policies = [cell for cell in cells if cell.outcome.kind != "reward"]
    for group in (rewards, policies):
        yield Measure("accuracy", {cell.name: cell.right_by_pair() for cell in group}, binary=True)
    for judge in judges:
        metric = judge_metric("judge_reward", judge, judges)
        yield Measure(metric, {cell.name: cell.judged_by_prompt(judge) for cell in policies}, binary=False)
    one_sample = all(cell.one_sample for cell in policies)
    yield Measure("gold_accuracy", {cell.name: cell.judged_by_prompt(GOLD) for cell in policies}, binary=one_sample)


def _between_checkpoints(measure: Measure) -> Iterator[Comparison]:
    test = "exact McNemar" if measure.binary else "paired t"
    present = [(name, values) for name, values in measure.values.items() if values]
    for (a, left), (b, right) in combinations(present, 2):
        units = [unit for unit in left if unit in right]
        pair = [left[unit] for unit in units], [right[unit] for unit in units]
        found = mcnemar_exact(*pair) if measure.binary else paired_t(*pair)
        yield _comparison(a, b, "checkpoint", measure.metric, test, found)


def _between_methods(measure: Measure, cells: Sequence[Cell]) -> Iterator[Comparison]:
    seeds: dict[str, list[float]] = {}
    fixed: dict[str, float] = {}
    for cell in cells:
        if values := measure.values.get(cell.name):
            centre = sum(values.values()) / len(values)
            if cell.outcome.kind == "base":
                fixed[cell.name] = centre
            else:
                seeds.setdefault(method_of(cell.name), []).append(centre)
    able = [(method, means) for method, means in seeds.items() if len(means) >= MIN_SEEDS]
    for (a, left), (b, right) in combinations(able, 2):
        yield _comparison(a, b, "method", measure.metric, "Welch t (seeds)", welch(left, right))
    for a, left in able:
        for b, centre in fixed.items():
            found = against_fixed(left, centre)
            yield _comparison(a, b, "method", measure.metric, "one-sample t (seeds)", found)


def _comparison(a: str, b: str, level: Level, metric: str, test: str, found: Difference) -> Comparison:
    return Comparison(
        a=a,
        b=b,
        level=level,
        metric=metric,
        difference=found.difference,
        low=found.low,
        high=found.high,
        test=test,
        p=found.p,
        p_holm=None,
        effect=found.effect,
        n=found.n,
    )
