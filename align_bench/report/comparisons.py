"""The tested differences between cells, and between methods where seeds allow it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from align_bench.metrics.accuracy import correctness
from align_bench.metrics.finite import finite, is_finite
from align_bench.metrics.length_bias import partial_correlation
from align_bench.records import Comparison, Level
from align_bench.report.cells import GOLD, Cell, judge_metric, proxies_of
from align_bench.report.naming import method_of
from align_bench.stats.bootstrap import paired_bootstrap
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
    found += _between_biases([cell for cell in done if cell.outcome.kind == "reward"])
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
    yield Measure("accuracy_right_shorter", {cell.name: _right_shorter(cell) for cell in rewards}, binary=True)
    for judge in judges:
        metric = judge_metric("judge_reward", judge, judges)
        yield Measure(metric, {cell.name: cell.judged_by_prompt(judge) for cell in policies}, binary=False)
    for reward, name in proxies_of([answer for cell in policies for answer in cell.generations]).items():
        scores = {cell.name: cell.judged_by_prompt(name) for cell in policies}
        yield Measure(f"proxy_reward[{reward}]", scores, binary=False)
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


def _right_shorter(cell: Cell) -> Values:
    """Pair → 1, ½ or 0: whether the right answer has the higher reward, where it is the shorter."""
    pairs = [pair for pair in cell.right_shorter() if is_finite(pair.right_reward) and is_finite(pair.wrong_reward)]
    marks = correctness([pair.right_reward for pair in pairs], [pair.wrong_reward for pair in pairs])
    return {pair.pair: mark for pair, mark in zip(pairs, marks, strict=True)}


def _between_biases(cells: Sequence[Cell]) -> Iterator[Comparison]:
    """The partial correlations of reward models with length, pair of models by pair of models."""
    for metric, columns in (
        ("length_correlation_given_label", _columns_by_label),
        ("length_correlation_given_gold", _columns_by_gold),
    ):
        known = [(cell.name, columns(cell)) for cell in cells]
        for (a, left), (b, right) in combinations([(name, rows) for name, rows in known if rows], 2):
            units = [unit for unit in left if unit in right]
            rewards = [[rows[unit][side] for unit in units] for rows in (left, right) for side in (0, 1)]
            words = [[left[unit][side] for unit in units] for side in (2, 3)]
            own_a, other_a, own_b, other_b, *shared = finite(*rewards, *words)
            found = paired_bootstrap(partial_correlation, (own_a, other_a), (own_b, other_b), shared)
            yield _comparison(a, b, "checkpoint", metric, "paired bootstrap", found)


def _columns_by_label(cell: Cell) -> Mapping[Hashable, Sequence[float | None]]:
    names = ("chosen_reward", "rejected_reward", "chosen_words", "rejected_words")
    return {row["pair"]: [row.get(name) for name in names] for row in cell.scores}


def _columns_by_gold(cell: Cell) -> Mapping[Hashable, Sequence[float | None]]:
    return {
        found.pair: [found.right_reward, found.wrong_reward, found.right_words, found.wrong_words]
        for found in cell.by_gold()
    }


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
