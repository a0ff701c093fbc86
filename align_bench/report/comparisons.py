"""The tested differences between cells, and between methods where seeds allow it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np

from align_bench.metrics.accuracy import correctness
from align_bench.metrics.clusters import cluster_codes
from align_bench.metrics.finite import finite, is_finite
from align_bench.metrics.length_bias import partial_correlation
from align_bench.records import CellId, Comparison, Kind, Level, MetricKey
from align_bench.report.cells import Cell, judge_metric, log_ratio, logp_mean, prompt_by_pair, proxies_of
from align_bench.report.decision import ALPHA, decide
from align_bench.report.rows import ScoredAnswer
from align_bench.stats.bootstrap import Matrix, bca_means, difference
from align_bench.stats.equivalence import prompt_spread, tost_methods, tost_paired
from align_bench.stats.paired import Difference, Vector, floored, holm, paired_shares, paired_t, wilcoxon_p
from align_bench.stats.seeds import (
    MIN_SEEDS,
    SeedNoise,
    between_methods,
    by_prompt,
    crossed,
    declared_noise,
    pooled_noise,
    seed_variance,
)
from align_bench.suite.names import GOLD, JUDGE_CELL

Values = Mapping[Hashable, float]
Pair = tuple[CellId, CellId]
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
        if all(other.keys() == first.keys() for other in rest):
            return list(first)
        return [unit for unit in first if all(unit in other for other in rest)]

    def table(self, cells: Sequence[CellId], units: Sequence[Hashable]) -> Matrix:
        """The values of these cells, a row per cell and a column per unit."""
        rows = (map(self.values[cell].__getitem__, units) for cell in cells)
        return np.array([np.fromiter(row, dtype=np.float64, count=len(units)) for row in rows])


@dataclass(frozen=True, slots=True)
class Entrants:
    """Who is held against whom.

    Attributes:
        seeds: cell → its seed.
        bases: the checkpoints that were not trained.
        against: names of the only methods, beside the base, that others are compared with; empty: with every other one.
    """

    seeds: Mapping[CellId, int]
    bases: frozenset[CellId]
    against: frozenset[str] = frozenset()

    @classmethod
    def of(cls, cells: Sequence[Cell], against: Iterable[str] = ()) -> Entrants:
        """Those of finished cells."""
        return cls(
            {cell.id: cell.outcome.seed for cell in cells},
            frozenset(cell.id for cell in cells if cell.outcome.kind == "base"),
            frozenset(against),
        )

    def pairs(self, cells: Sequence[CellId]) -> list[Pair]:
        """Each cell with the base, and each two cells of different methods that share a seed, in the cells' order.

        Where two methods have no seed in common, theirs are paired in order. Seeds of one method are never compared.
        Of methods that are compared with some only, the other pairs are left out.
        """
        allowed: set[frozenset[CellId]] = set()
        methods = _by_method(cells)
        for one, other in self.opponents(methods):
            a, b = methods[one], methods[other]
            found = product(a, b) if {*a, *b} & self.bases else self._matched(a, b)
            allowed |= set(map(frozenset, found))
        return [pair for pair in combinations(cells, 2) if frozenset(pair) in allowed]

    def opponents(self, methods: Mapping[CellId, Sequence[CellId]]) -> list[Pair]:
        """The methods, the base among them, that are compared with each other, in their order."""
        chosen = {one for one, cells in methods.items() if one.name in self.against or not self.trained(one, cells)}
        some = any(one.name in self.against for one in methods)
        return [pair for pair in combinations(methods, 2) if not some or chosen & {*pair}]

    def _matched(self, a: Sequence[CellId], b: Sequence[CellId]) -> list[Pair]:
        left, right = ({self.seeds[cell]: cell for cell in cells} for cells in (a, b))
        if common := [seed for seed in left if seed in right]:
            return [(left[seed], right[seed]) for seed in common]
        return [(left[one], right[other]) for one, other in zip(sorted(left), sorted(right), strict=False)]

    def seeded(self, methods: Mapping[CellId, Sequence[CellId]]) -> dict[CellId, Sequence[CellId]]:
        """The methods with enough seeds for a claim, and the base."""
        return {
            method: cells
            for method, cells in methods.items()
            if len(cells) >= MIN_SEEDS or not self.trained(method, cells)
        }

    def trained(self, method: CellId, cells: Sequence[CellId]) -> bool:
        """Whether it is a method, and not the base."""
        return not set(cells) <= self.bases


@dataclass(frozen=True, slots=True)
class Margins:
    """What the suite's `report` says of differences.

    Attributes:
        equivalence_dz: the margin of equivalence, in standard deviations of the differences on one prompt.
        seed_noise: the declared standard deviation of a method's mean over seeds, in the same unit; None without one.
        against: as of `Entrants`.
    """

    equivalence_dz: float
    seed_noise: float | None = None
    against: Sequence[str] = ()


def compare_all(cells: Sequence[Cell], every: Sequence[Measure], margins: Margins) -> list[Comparison]:
    """Each cell against the base and against the others of its seed, on every measure they share; then the methods.

    A judge's own cell is compared with none. Holm's adjustment takes the tests of one measure as a family, and all
    tests between methods as another one: the many tests of checkpoints must not drown the few claims about methods. The
    tests of equivalence are families of their own, since a difference cannot be both shown and shown to be none. The
    base stands last in its pairs, so that a positive difference is a gain over it.

    Args:
        cells: all cells.
        every: their measures.
        margins: of the suite.
    """
    done = entrants(cells)
    who = Entrants.of(done, margins.against)
    families = [list(_between_checkpoints(measure, who, margins)) for measure in every]
    families += _between_biases([cell for cell in done if cell.outcome.kind == "reward"], who)
    families.append([one for measure in every for one in _between_methods(measure, who, margins.equivalence_dz)])
    return [one for family in families for one in _adjusted(family)]


def finished(cells: Sequence[Cell]) -> list[Cell]:
    """The cells with a result, the base last."""
    return sorted(
        (cell for cell in cells if cell.outcome.status == "done"), key=lambda cell: cell.outcome.kind == "base"
    )


def entrants(cells: Sequence[Cell]) -> list[Cell]:
    """Those of them that are no judge's own."""
    return [cell for cell in finished(cells) if cell.outcome.algorithm != JUDGE_CELL]


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
    return _by_method(measure.values)


def _by_method(cells: Iterable[CellId]) -> dict[CellId, list[CellId]]:
    found: dict[CellId, list[CellId]] = {}
    for cell in cells:
        found.setdefault(cell.method, []).append(cell)
    return found


def _pair_measures(
    rewards: Sequence[Cell], policies: Sequence[Cell], prompts: Mapping[Hashable, Hashable]
) -> Iterator[Measure]:
    """What cells say of the validation pairs.

    Accuracy of policies is by measures that are the same for all: the log-ratio, and the mean log-probability per
    token. By its own reward, which every method defines for itself, none is compared with another.
    """
    right = {cell.id: cell.right_by_pair() for cell in rewards}
    yield Measure(MetricKey("accuracy"), "reward", SHARE, right, prompts, binary=True)
    trained = [cell for cell in policies if cell.outcome.kind == "policy"]  # the base has no log-ratio to itself
    by_ratio = {cell.id: cell.right_by_pair(log_ratio) for cell in trained}
    yield Measure(MetricKey("accuracy_logratio"), "policy", SHARE, by_ratio, prompts, binary=True)
    by_logp = {cell.id: cell.right_by_pair(logp_mean) for cell in policies}
    yield Measure(MetricKey("accuracy_logp_mean"), "policy", SHARE, by_logp, prompts, binary=True)
    shorter = {cell.id: _right_shorter(cell) for cell in rewards}
    yield Measure(MetricKey("accuracy_right_shorter"), "reward", SHARE, shorter, prompts, binary=True)


def _judged(metric: MetricKey, judge: str, policies: Sequence[Cell]) -> Measure:
    scores = {cell.id: cell.judged_by_prompt(judge) for cell in policies}
    return Measure(metric, "policy", REWARD, scores, {}, binary=False)


def _proxied(reward: str, policies: Sequence[Cell]) -> Measure:
    scores = {cell.id: cell.proxied_by_prompt(reward) for cell in policies}
    return Measure(MetricKey("proxy_reward", reward), "policy", REWARD, scores, {}, binary=False)


def _adjusted(family: Sequence[Comparison]) -> Iterator[Comparison]:
    differing, equal = holm([found.p for found in family]), holm([found.p_tost for found in family])
    tests = sum(found.p is not None for found in family) or len(family)  # where intervals decide, each is one
    for found, p, p_tost in zip(family, differing, equal, strict=True):
        adjusted = replace(found, p_holm=p, p_tost_holm=p_tost, family=tests)
        yield replace(adjusted, decision=decide(adjusted))


def _between_checkpoints(measure: Measure, who: Entrants, margins: Margins) -> Iterator[Comparison]:
    pairs = who.pairs(list(measure.values))
    units = [measure.common(pair) for pair in pairs]
    seeded, own_noise = who.seeded(by_method(measure)), _own_noise(measure, who)
    for (a, b), common, (low, high) in zip(pairs, units, _bca(measure, pairs, units), strict=True):
        left, right = measure.table([a], common), measure.table([b], common)
        clusters = measure.clusters(common)
        prompts = len(set(clusters))
        if measure.binary:
            name, gap = paired_shares(left[0], right[0], clusters)
        else:
            name = "clustered t" if prompts < len(common) else "paired t"
            gap = paired_t(left[0], right[0], clusters)
        tested = _Tested(name, gap, prompts)
        spread = prompt_spread(left, right)
        margin = margins.equivalence_dz * spread if spread else None
        found = replace(
            _comparison(a, b, "checkpoint", measure.metric, measure.unit, tested),
            bootstrap_low=low,
            bootstrap_high=high,
            p_wilcoxon=None if measure.binary else floored(wilcoxon_p(left[0], right[0], clusters)),
            margin=margin,
            p_tost=floored(tost_paired(left[0], right[0], margin, clusters)) if margin else None,
        )
        noise = own_noise
        if noise is None and margins.seed_noise is not None and spread:
            noise = declared_noise(margins.seed_noise, spread)
        if noise is None or not spread or prompts < 2 or {a.method, b.method} <= seeded.keys():
            yield found
        else:
            values = by_prompt(left, clusters)[0], by_prompt(right, clusters)[0]
            level = 1 - ALPHA / len(pairs)
            yield _with_seeds(found, values, noise, spread, level, b_trained=b not in who.bases)


def _own_noise(measure: Measure, who: Entrants) -> SeedNoise | None:
    """What the suite's own seeds say of the noise of one."""
    found = []
    for method, cells in by_method(measure).items():
        units = measure.common(cells)
        clusters = measure.clusters(units)
        if len(cells) > 1 and len(set(clusters)) > 1 and who.trained(method, cells):
            found.append(seed_variance(by_prompt(measure.table(cells, units), clusters)))
    return pooled_noise(found)


def _with_seeds(
    found: Comparison, values: tuple[Vector, Vector], noise: SeedNoise, spread: float, level: float, *, b_trained: bool
) -> Comparison:
    """The comparison with an interval for its methods.

    Args:
        found: between two checkpoints.
        values: of each, prompt by prompt.
        noise: of a seed.
        spread: standard deviation of the differences on one prompt.
        level: confidence of the interval, adjusted for its family: it decides.
        b_trained: whether b is not the base.
    """
    methods = between_methods(*values, noise, b_trained=b_trained)
    tested = methods.tested(level)
    return replace(
        found,
        method_low=tested.low,
        method_high=tested.high,
        seed_share=methods.seed_share,
        seed_noise=math.sqrt(noise.variance) / spread,
        seed_noise_declared=noise.declared,
    )


def _bca(
    measure: Measure, pairs: Sequence[Pair], units: Sequence[Sequence[Hashable]]
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


def _between_biases(cells: Sequence[Cell], who: Entrants) -> Iterator[list[Comparison]]:
    """The partial correlations of reward models with length, a family for each of the two.

    Their differences have intervals and no tests, so it is these that are adjusted for the family (Bonferroni).
    """
    prompts = prompt_by_pair(cells)
    for name, rows_of in (
        ("length_correlation_given_label", _rows_by_label),
        ("length_correlation_given_gold", _rows_by_gold),
    ):
        known = {cell.id: rows for cell in cells if (rows := rows_of(cell))}
        pairs = who.pairs(list(known))
        yield [
            _bias(MetricKey(name), pair, (known[pair[0]], known[pair[1]]), prompts, ALPHA / len(pairs))
            for pair in pairs
        ]


def _bias(
    metric: MetricKey,
    pair: Pair,
    rows: tuple[Mapping[int, _Ordered], Mapping[int, _Ordered]],
    prompts: Mapping[Hashable, Hashable],
    alpha: float,
) -> Comparison:
    left, right = rows
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
        1 - alpha,
    )
    tested = _Tested("paired bootstrap (Bonferroni)", found, count)
    return _comparison(*pair, "checkpoint", metric, CORRELATION, tested)


@dataclass(frozen=True, slots=True)
class _Ordered:
    """Both answers of a pair, by the label or by gold."""

    better: ScoredAnswer
    worse: ScoredAnswer


def _rows_by_label(cell: Cell) -> Mapping[int, _Ordered]:
    return {row.pair: _Ordered(row.chosen, row.rejected) for row in cell.scores}


def _rows_by_gold(cell: Cell) -> Mapping[int, _Ordered]:
    return {found.pair: _Ordered(found.right, found.wrong) for found in cell.by_gold()}


def _between_methods(measure: Measure, who: Entrants, equivalence_dz: float) -> Iterator[Comparison]:
    """Methods with enough seeds against each other and against the base, on the units that all their cells have."""
    methods = who.seeded(by_method(measure))
    if not any(who.trained(method, cells) for method, cells in methods.items()):
        return
    units = measure.common([cell for cells in methods.values() for cell in cells])
    clusters = measure.clusters(units)
    prompts = len(set(clusters))
    if prompts < 2:
        return
    tables = {method: measure.table(cells, units) for method, cells in methods.items()}
    for a, b in who.opponents(methods):
        if not who.trained(a, methods[a]):  # two bases
            continue
        found = crossed(tables[a], tables[b], clusters, b_trained=who.trained(b, methods[b]))
        spread = prompt_spread(tables[a], tables[b])
        margin = equivalence_dz * spread if spread else None
        tested = _Tested("crossed t (seeds × prompts)", found.tested(), prompts)
        yield replace(
            _comparison(a, b, "method", measure.metric, measure.unit, tested),
            margin=margin,
            p_tost=floored(tost_methods(found, margin)) if margin else None,
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
        p=floored(found.p),
        p_holm=None,
        p_wilcoxon=None,
        effect=found.effect,
        margin=None,
        p_tost=None,
        p_tost_holm=None,
        n=found.n,
        prompts=tested.prompts,
        df=found.df,
    )
