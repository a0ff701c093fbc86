"""The tested differences between cells, and between methods where seeds allow it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from align_bench.metrics.accuracy import correctness
from align_bench.metrics.clusters import cluster_codes, is_clustered
from align_bench.metrics.finite import finite, is_finite
from align_bench.metrics.length_bias import partial_correlation
from align_bench.records import CellId, Comparison, Kind, Level, MetricKey
from align_bench.report.cells import Cell, judge_metric, prompt_by_pair, proxies_of
from align_bench.report.rows import ScoredAnswer
from align_bench.stats.bootstrap import Matrix, bca_means, difference, percentiles, resampled_means
from align_bench.stats.equivalence import prompt_spread, tost_fixed, tost_paired, tost_seeds
from align_bench.stats.paired import Difference, holm, mcnemar_exact, paired_t, wilcoxon_p
from align_bench.stats.seeds import MIN_SEEDS, against_fixed, welch
from align_bench.suite.names import GOLD

Values = Mapping[Hashable, float]
LEVELS: tuple[Level, ...] = ("checkpoint", "method")
SHARE, REWARD, CORRELATION = "share", "reward", "correlation"


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric of the cells that it may be compared among.

    Attributes:
        metric: which one.
        kind: whether the cells are reward models, or policies with the base.
        unit: of its values.
        values: cell → unit (pair or prompt) → value; the base, if it is among them, last. Cells without any are absent.
        prompts: pair → its prompt; a unit that is not in it is a prompt itself.
        binary: whether the values are right or wrong (or a tie), so that McNemar's test applies.
    """

    metric: MetricKey
    kind: Kind
    unit: str
    values: Mapping[CellId, Values]
    prompts: Mapping[Hashable, Hashable]
    binary: bool

    def clusters(self, units: Sequence[Hashable]) -> list[Hashable]:
        """The prompt of each unit."""
        return [self.prompts.get(unit, unit) for unit in units]

    def common(self, cells: Sequence[CellId]) -> list[Hashable]:
        """The units for which all of these cells have a value, in the first one's order."""
        first, *rest = (self.values[cell] for cell in cells)
        return [unit for unit in first if all(unit in other for other in rest)]

    def table(self, cells: Sequence[CellId], units: Sequence[Hashable]) -> Matrix:
        """The values of these cells, a row per cell and a column per unit."""
        return np.array([[self.values[cell][unit] for unit in units] for cell in cells], dtype=np.float64)


def compare_all(cells: Sequence[Cell], judges: Sequence[str], equivalence_dz: float) -> list[Comparison]:
    """Every pair of cells on every measure they share, then every pair of methods.

    Holm's adjustment takes all tests of a level as one family: the many tests of checkpoints must not drown the few
    claims about methods. The tests of equivalence are a family of their own, since a difference cannot be both shown
    and shown to be none. The base stands last in its pairs, so that a positive difference is a gain over it.

    Args:
        cells: all cells.
        judges: the reward judges.
        equivalence_dz: the margin of equivalence, in standard deviations of the differences on one prompt.
    """
    done = finished(cells)
    every = measures(done, judges)
    found = [comparison for measure in every for comparison in _between_checkpoints(measure, equivalence_dz)]
    found += _between_biases([cell for cell in done if cell.outcome.kind == "reward"])
    bases = {cell.id for cell in done if cell.outcome.kind == "base"}
    found += [comparison for measure in every for comparison in _between_methods(measure, bases, equivalence_dz)]
    return [one for level in LEVELS for one in _adjusted([one for one in found if one.level == level])]


def finished(cells: Sequence[Cell]) -> list[Cell]:
    """The cells with a result, the base last."""
    return sorted(
        (cell for cell in cells if cell.outcome.status == "done"), key=lambda cell: cell.outcome.kind == "base"
    )


def measures(cells: Sequence[Cell], judges: Sequence[str]) -> list[Measure]:
    """What cells are compared on.

    Args:
        cells: finished cells, the base last.
        judges: the reward judges.
    """
    rewards = [cell for cell in cells if cell.outcome.kind == "reward"]
    policies = [cell for cell in cells if cell.outcome.kind != "reward"]
    found = [
        *_pair_measures(rewards, policies, prompt_by_pair(cells)),
        *(_judged(judge_metric("judge_reward", judge, judges), judge, policies) for judge in judges),
        *(
            _proxied(name, policies)
            for name in proxies_of([answer for cell in policies for answer in cell.generations])
        ),
        replace(
            _judged(MetricKey("gold_accuracy"), GOLD, policies),
            unit=SHARE,
            binary=all(cell.one_sample for cell in policies),
        ),
    ]
    return [replace(one, values={cell: own for cell, own in one.values.items() if own}) for one in found]


def by_method(measure: Measure) -> dict[CellId, list[CellId]]:
    """Method → its cells with values; the base is a method of one cell."""
    found: dict[CellId, list[CellId]] = {}
    for cell in measure.values:
        found.setdefault(cell.method, []).append(cell)
    return found


def _pair_measures(
    rewards: Sequence[Cell], policies: Sequence[Cell], prompts: Mapping[Hashable, Hashable]
) -> Iterator[Measure]:
    """What cells say of the validation pairs."""
    kinds: tuple[tuple[Kind, Sequence[Cell]], ...] = (("reward", rewards), ("policy", policies))
    for kind, cells in kinds:
        right = {cell.id: cell.right_by_pair() for cell in cells}
        yield Measure(MetricKey("accuracy"), kind, SHARE, right, prompts, binary=True)
    shorter = {cell.id: _right_shorter(cell) for cell in rewards}
    yield Measure(MetricKey("accuracy_right_shorter"), "reward", SHARE, shorter, prompts, binary=True)


def _judged(metric: MetricKey, judge: str, policies: Sequence[Cell]) -> Measure:
    scores = {cell.id: cell.judged_by_prompt(judge) for cell in policies}
    return Measure(metric, "policy", REWARD, scores, {}, binary=False)


def _proxied(reward: str, policies: Sequence[Cell]) -> Measure:
    scores = {cell.id: cell.proxied_by_prompt(reward) for cell in policies}
    return Measure(MetricKey("proxy_reward", reward), "policy", REWARD, scores, {}, binary=False)


def _adjusted(family: Sequence[Comparison]) -> list[Comparison]:
    differing, equal = holm([found.p for found in family]), holm([found.p_tost for found in family])
    return [
        replace(found, p_holm=p, p_tost_holm=p_tost) for found, p, p_tost in zip(family, differing, equal, strict=True)
    ]


def _between_checkpoints(measure: Measure, equivalence_dz: float) -> Iterator[Comparison]:
    pairs = list(combinations(measure.values, 2))
    units = [measure.common(pair) for pair in pairs]
    for (a, b), common, (low, high) in zip(pairs, units, _bca(measure, pairs, units), strict=True):
        left, right = measure.table([a, b], common)
        clusters = measure.clusters(common)
        prompts = len(set(clusters))
        clustered = bool(common) and is_clustered(cluster_codes(clusters, len(common)))
        if measure.binary and not clustered:
            tested = _Tested("exact McNemar", mcnemar_exact(left, right), prompts)
        else:
            name = "clustered t" if clustered else "paired t"
            tested = _Tested(name, paired_t(left, right, clusters), prompts)
        spread = prompt_spread(left[None], right[None])
        margin = equivalence_dz * spread if spread else None
        yield replace(
            _comparison(a, b, "checkpoint", measure.metric, measure.unit, tested),
            bootstrap_low=low,
            bootstrap_high=high,
            p_wilcoxon=None if measure.binary else wilcoxon_p(left, right, clusters),
            margin=margin,
            p_tost=tost_paired(left, right, margin, clusters) if margin else None,
        )


def _bca(
    measure: Measure, pairs: Sequence[tuple[CellId, CellId]], units: Sequence[Sequence[Hashable]]
) -> list[tuple[float | None, float | None]]:
    """The BCa interval of each pair's mean difference; pairs with the same units share their resamples."""
    places: dict[tuple[Hashable, ...], list[int]] = {}
    for place, common in enumerate(units):
        places.setdefault(tuple(common), []).append(place)
    bounds: list[tuple[float | None, float | None]] = [(None, None)] * len(pairs)
    for common, here in places.items():
        sides = [measure.table(pairs[place], common) for place in here]
        found = bca_means(np.stack([left - right for left, right in sides], axis=1), measure.clusters(common))
        for place, (low, high) in zip(here, found.tolist(), strict=True):
            bounds[place] = (low, high) if is_finite(low) and is_finite(high) else (None, None)
    return bounds


def _right_shorter(cell: Cell) -> Values:
    """Pair → 1, ½ or 0: whether the right answer has the higher reward, where it is the shorter."""
    pairs = [pair for pair in cell.right_shorter() if is_finite(pair.right.reward) and is_finite(pair.wrong.reward)]
    marks = correctness([pair.right.reward for pair in pairs], [pair.wrong.reward for pair in pairs])
    return {pair.pair: mark for pair, mark in zip(pairs, marks, strict=True)}


def _between_biases(cells: Sequence[Cell]) -> Iterator[Comparison]:
    """The partial correlations of reward models with length, pair of models by pair of models."""
    prompts = prompt_by_pair(cells)
    for name, rows_of in (
        ("length_correlation_given_label", _rows_by_label),
        ("length_correlation_given_gold", _rows_by_gold),
    ):
        known = {cell.id: rows for cell in cells if (rows := rows_of(cell))}
        for (a, left), (b, right) in combinations(known.items(), 2):
            units = [unit for unit in left if unit in right]
            own_a, other_a, own_b, other_b, longer, shorter, numbers = finite(
                [left[unit].better.reward for unit in units],
                [left[unit].worse.reward for unit in units],
                [right[unit].better.reward for unit in units],
                [right[unit].worse.reward for unit in units],
                [left[unit].better.words for unit in units],
                [left[unit].worse.words for unit in units],
                cluster_codes([prompts[unit] for unit in units], len(units)),
            )
            codes = cluster_codes(numbers.tolist(), len(numbers))
            count = len(set(codes.tolist()))
            found = difference(
                partial_correlation(own_a, other_a, longer, shorter, codes),
                partial_correlation(own_b, other_b, longer, shorter, codes),
                count,
                len(codes),
            )
            tested = _Tested("paired bootstrap", found, count)
            yield _comparison(a, b, "checkpoint", MetricKey(name), CORRELATION, tested)


@dataclass(frozen=True, slots=True)
class _Ordered:
    """Both answers of a pair, by the label or by gold."""

    better: ScoredAnswer
    worse: ScoredAnswer


def _rows_by_label(cell: Cell) -> Mapping[int, _Ordered]:
    return {row.pair: _Ordered(row.chosen, row.rejected) for row in cell.scores}


def _rows_by_gold(cell: Cell) -> Mapping[int, _Ordered]:
    return {found.pair: _Ordered(found.right, found.wrong) for found in cell.by_gold()}


def _between_methods(measure: Measure, bases: set[CellId], equivalence_dz: float) -> Iterator[Comparison]:
    """Methods with enough seeds against each other and against the base, on the units that all their cells have."""
    methods = {
        method: cells for method, cells in by_method(measure).items() if len(cells) >= MIN_SEEDS or set(cells) <= bases
    }
    if not any(len(cells) >= MIN_SEEDS for cells in methods.values()):
        return
    units = measure.common([cell for cells in methods.values() for cell in cells])
    clusters = measure.clusters(units)
    prompts = len(set(clusters))
    if prompts < 2:
        return
    tables = {method: measure.table(cells, units) for method, cells in methods.items()}
    drawn = dict(zip(tables, resampled_means(list(tables.values()), clusters), strict=True))
    for a, b in combinations(tables, 2):
        left, right = tables[a].mean(axis=1).tolist(), tables[b].mean(axis=1).tolist()
        spread = prompt_spread(tables[a], tables[b])
        margin = equivalence_dz * spread if spread else None
        if b in bases:
            tested = _Tested("one-sample t (seeds)", against_fixed(left, right[0]), prompts)
            p_tost = tost_fixed(left, right[0], margin) if margin else None
        else:
            tested = _Tested("Welch t (seeds)", welch(left, right), prompts)
            p_tost = tost_seeds(left, right, margin) if margin else None
        low, high = percentiles(drawn[a] - drawn[b])
        yield replace(
            _comparison(a, b, "method", measure.metric, measure.unit, tested),
            bootstrap_low=low,
            bootstrap_high=high,
            margin=margin,
            p_tost=p_tost,
        )


@dataclass(frozen=True, slots=True)
class _Tested:
    """A test's name, what it found, and the distinct prompts behind it."""

    name: str
    found: Difference
    prompts: int


def _comparison(a: CellId, b: CellId, level: Level, metric: MetricKey, unit: str, tested: _Tested) -> Comparison:
    found = tested.found
    return Comparison(
        a=a,
        b=b,
        level=level,
        metric=metric,
        unit=unit,
        difference=found.difference,
        low=found.low,
        high=found.high,
        bootstrap_low=None,
        bootstrap_high=None,
        test=tested.name,
        p=found.p,
        p_holm=None,
        p_wilcoxon=None,
        effect=found.effect,
        margin=None,
        p_tost=None,
        p_tost_holm=None,
        n=found.n,
        prompts=tested.prompts,
    )
