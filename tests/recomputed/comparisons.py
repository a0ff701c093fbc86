"""`comparisons` and `detectable`, from the rows behind them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product

import numpy as np
from scipy import optimize, stats

from tests.recomputed.arithmetic import (
    Column,
    Drawn,
    bootstrap,
    holm,
    weighted_mean,
    with_prompts,
)
from tests.recomputed.cells import cell_leaves, method_leaves
from tests.recomputed.folder import Cell, Folder, Prompt, Row, prompt_of
from tests.recomputed.ledger import Leaf, Ledger, Path
from tests.recomputed.measures import Measure, Values, common, measures, table
from tests.recomputed.paired import TESTED, number, paired
from tests.recomputed.results import bounded, by_gold, once, partial
from tests.recomputed.seeds import (
    MIN_SEEDS,
    Noise,
    crossed,
    pooled,
    prompt_values,
    seed_spread,
    with_one_seed,
)

P_VALUES = ("p", "p_holm", "p_wilcoxon", "p_tost", "p_tost_holm")
BOOTSTRAP = ("bootstrap_low", "bootstrap_high")
OF_METHODS = ("method_low", "method_high", "seed_share", "seed_noise", "seed_noise_declared")
Entry = tuple[Cell, Values]


@dataclass
class Tested:
    """A comparison, as this side finds it."""

    a: Cell
    b: Cell
    level: str
    measure: str
    of: str
    unit: str
    numbers: dict[str, Leaf] = field(default_factory=lambda: dict.fromkeys((*TESTED, *BOOTSTRAP, *OF_METHODS)))
    drawn: Drawn | None = None

    @property
    def drawn_bounds(self) -> tuple[str, str]:
        """Which bounds are those of a bootstrap."""
        return ("low", "high") if self.unit == "correlation" else BOOTSTRAP


def compared(folder: Folder) -> list[Tested]:
    """Every comparison, in the report's order: the measures' checkpoints, the correlations', then all methods'."""
    every = measures(folder)
    families = [_between_checkpoints(folder, measure) for measure in every]
    families += _between_biases(folder)
    families.append([tested for measure in every for tested in _between_methods(folder, measure)])
    for family in families:
        _adjust(family)
    return [tested for family in families for tested in family]


def enter(folder: Folder, found: Sequence[Tested], ledger: Ledger) -> None:
    for place, one in enumerate(found):
        path: Path = ("comparisons", place)
        leaves_of = cell_leaves if one.level == "checkpoint" else method_leaves
        leaves_of(ledger, (*path, "a"), one.a)
        leaves_of(ledger, (*path, "b"), one.b)
        ledger.record((*path, "metric"), {"name": one.measure, "of": one.of})
        ledger.record(path, {"level": one.level, "unit": one.unit})
        for name, value in one.numbers.items():
            if name in P_VALUES:
                ledger.p((*path, name), number(value))
            elif one.drawn is not None and name in one.drawn_bounds:
                ledger.add((*path, name), value, one.drawn.low_range if "low" in name else one.drawn.high_range)
            else:
                ledger.add((*path, name), value)
    _detectable(folder, found, ledger)


def _adjust(family: Sequence[Tested]) -> None:
    """Holm's adjustment, and what may be said."""
    for name in ("p", "p_tost"):
        adjusted = holm([number(one.numbers[name]) for one in family])
        for one, p in zip(family, adjusted, strict=True):
            one.numbers[f"{name}_holm"] = p
    tests = sum(one.numbers["p"] is not None for one in family) or len(family)
    for one in family:
        one.numbers |= {"family": tests, "decision": _decision(one)}


def _decision(one: Tested) -> str:
    found = {
        name: number(one.numbers[name]) for name in ("difference", "low", "high", "p_holm", "p_tost_holm", "margin")
    }
    difference, low, high, p, equal = (found[name] for name in ("difference", "low", "high", "p_holm", "p_tost_holm"))
    if difference is None or (p is None and low is None):
        return "undefined"
    shown = not low <= 0 <= high if p is None and low is not None and high is not None else p is not None and p < 0.05
    if shown:
        return "higher" if difference > 0 else "lower"
    return "equivalent" if equal is not None and equal < 0.05 else "none"


def _met(a: Cell, b: Cell, methods: Iterable[Cell], folder: Folder) -> bool:
    """Whether two methods, by a cell of each, are compared: where the suite names opponents, one of the two is such."""
    named = [cell.place for cell in methods if cell.identity["name"] in folder.facts["against"]]
    return not named or "base" in (a.kind, b.kind) or bool({a.place, b.place} & {*named})


def pairs_of(entries: Sequence[Entry], folder: Folder) -> list[tuple[Entry, Entry]]:
    """Each cell with the base, and cells of different methods that share a seed; in order where none is shared."""
    allowed: set[frozenset[int]] = set()
    methods: dict[str, list[Cell]] = {}
    for cell, _ in entries:
        methods.setdefault(cell.method, []).append(cell)
    for left, right in combinations(methods.values(), 2):
        if not _met(left[0], right[0], [own[0] for own in methods.values()], folder):
            continue
        if "base" in (left[0].kind, right[0].kind):
            matched = list(product(left, right))
        else:
            matched = [(a, b) for a in left for b in right if a.seed == b.seed]
            if not matched:
                ordered = (sorted(side, key=lambda cell: cell.seed) for side in (left, right))
                matched = list(zip(*ordered, strict=False))
        allowed |= {frozenset((a.place, b.place)) for a, b in matched}
    return [(a, b) for a, b in combinations(entries, 2) if frozenset((a[0].place, b[0].place)) in allowed]


def _seeded(measure: Measure) -> dict[str, list[Entry]]:
    return {method: own for method, own in measure.methods.items() if len(own) >= MIN_SEEDS or own[0][0].kind == "base"}


def _between_checkpoints(folder: Folder, measure: Measure) -> list[Tested]:
    found, noise, seeded = [], _own_noise(measure), _seeded(measure)
    pairs = pairs_of(measure.values, folder)
    for (a, left), (b, other) in pairs:
        units = common([left, other])
        one, two = table([left, other], units)
        prompts = [measure.prompt(unit) for unit in units]
        tested = Tested(a, b, "checkpoint", measure.name, measure.of, measure.unit)
        found.append(tested)
        tested.numbers |= paired(one - two, prompts, measure.binary, folder.equivalence_dz)
        if len(units) and np.ptp(one - two) > 0 and tested.numbers["prompts"] != 1:
            tested.drawn = drawn_mean(one - two, prompts)
            if tested.drawn is not None:
                tested.numbers |= {"bootstrap_low": tested.drawn.low, "bootstrap_high": tested.drawn.high}
        margin = number(tested.numbers["margin"])
        if margin is None or tested.numbers["prompts"] == 1 or (a.method in seeded and b.method in seeded):
            continue
        spread = margin / folder.equivalence_dz
        known_noise = noise
        if noise is None and folder.seed_noise is not None:
            variance = (folder.seed_noise * spread) ** 2
            known_noise = Noise(variance, variance, math.inf, True)
        if known_noise is not None:
            trained = 1 if b.kind == "base" else 2
            values = prompt_values(one, prompts), prompt_values(two, prompts)
            between = with_one_seed(*values, known_noise, trained)
            low, high = between.interval(0.05 / len(pairs))
            own = low, high, between.seed_share, math.sqrt(known_noise.variance) / spread, known_noise.declared
            tested.numbers |= dict(zip(OF_METHODS, own, strict=True))
    return found


def _own_noise(measure: Measure) -> Noise | None:
    """What the suite's own seeds say of the noise of one."""
    found = []
    for own in measure.methods.values():
        units = common([values for _, values in own])
        prompts = [measure.prompt(unit) for unit in units]
        if len(own) > 1 and len(set(prompts)) > 1 and own[0][0].kind != "base":
            rows = table([values for _, values in own], units)
            found.append(seed_spread(np.array([prompt_values(row, prompts) for row in rows])))
    return pooled(found)


def drawn_mean(values: Column, prompts: Sequence[Prompt]) -> Drawn | None:
    """BCa bounds of the mean over resampled prompts."""
    return bootstrap(lambda weights: weighted_mean(weights, values), prompts, len(values))[0]


def _between_biases(folder: Folder) -> list[list[Tested]]:
    """Differences between the partial correlations of reward models with length; Bonferroni's intervals decide."""
    families = []
    models = [cell for cell in folder.finished if cell.kind == "reward" and cell.algorithm != "judge"]
    for name, ordered in (("label", _by_label), ("gold", _by_gold)):
        own = {cell.place: ordered(cell) for cell in models}
        pairs = pairs_of([(cell, {}) for cell in models if own[cell.place]], folder)
        found = []
        for (a, _), (b, _) in pairs:
            left, other = own[a.place], own[b.place]
            shared = [pair for pair in left if pair in other]
            columns: list[list[float | None]] = []
            for rows in (left, other):
                columns += [[rows[pair].score(right) for pair in shared] for right in (True, False)]
            columns += [[left[pair].words(right) for pair in shared] for right in (True, False)]
            *samples, prompts = with_prompts([prompt_of(left[pair].row) for pair in shared], *columns)
            tested = Tested(a, b, "checkpoint", f"length_correlation_given_{name}", "", "correlation")
            tested.numbers |= {"test": "paired bootstrap (Bonferroni)", "n": len(prompts)}
            tested.numbers["prompts"] = len(set(prompts))
            _drawn_difference(tested, samples, prompts, 0.05 / len(pairs))
            found.append(tested)
        families.append(found)
    return families


def _drawn_difference(tested: Tested, samples: Sequence[Column], prompts: Sequence[Prompt], alpha: float) -> None:
    def difference(weights: Column) -> Column:
        a, b, c, d, x, y = samples
        return partial(weights, a, b, x, y) - partial(weights, c, d, x, y)

    n = len(prompts)
    value = once(difference, n) if n > 1 else math.nan
    if not math.isfinite(value):
        tested.numbers |= dict.fromkeys(("difference", "low", "high"))
        return
    interval = bounded(value, n, difference, prompts, alpha=alpha)
    tested.numbers |= {"difference": value, "low": interval.low, "high": interval.high}
    tested.drawn = interval.drawn


@dataclass(frozen=True)
class _Ordered:
    """A pair's row with the sides of its better and of its worse answer."""

    row: Row
    better: str
    worse: str

    def score(self, better: bool) -> float | None:
        found: float | None = self.row[f"{self.better if better else self.worse}_reward"]
        return found

    def words(self, better: bool) -> float | None:
        found: float | None = self.row[f"{self.better if better else self.worse}_words"]
        return found


def _by_label(cell: Cell) -> dict[int, _Ordered]:
    return {row["pair"]: _Ordered(row, "chosen", "rejected") for row in cell.scores}


def _by_gold(cell: Cell) -> dict[int, _Ordered]:
    return {row["pair"]: _Ordered(*ordered) for row in cell.scores if (ordered := by_gold(row)) is not None}


def _between_methods(folder: Folder, measure: Measure) -> list[Tested]:
    methods = _seeded(measure)
    if all(own[0][0].kind == "base" for own in methods.values()):
        return []
    units = common([values for own in methods.values() for _, values in own])
    prompts = [measure.prompt(unit) for unit in units]
    if len(set(prompts)) < 2:
        return []
    found = []
    for a, b in combinations(methods.values(), 2):
        if not _met(a[0][0], b[0][0], [own[0][0] for own in methods.values()], folder):
            continue
        tested = Tested(a[0][0], b[0][0], "method", measure.name, measure.of, measure.unit)
        found.append(tested)
        rows = [table([values for _, values in side], units) for side in (a, b)]
        one, two = (np.array([prompt_values(row, prompts) for row in side]) for side in rows)
        trained = b[0][0].kind != "base"
        between = crossed([one, two] if trained else [one], one.mean(axis=0) - two.mean(axis=0))
        variances = [float((left - other).var(ddof=1)) for left, other in product(*rows)]
        margin = folder.equivalence_dz * math.sqrt(sum(variances) / len(variances))
        low, high = between.interval()
        tested.numbers |= {
            "test": "crossed t (seeds × prompts)",
            "n": min(len(a), len(b)) if trained else len(a),
            "prompts": len(set(prompts)),
            "difference": between.difference,
            "low": low,
            "high": high,
            "p": between.p(),
            "df": between.df,
        }
        if margin:
            tested.numbers |= {"margin": margin, "p_tost": between.p_tost(margin)}
    return found


def _detectable(folder: Folder, tested: Sequence[Tested], ledger: Ledger) -> None:
    answered = len({row["prompt_id"] for cell in folder.cells for row in cell.generations})
    families = [one.numbers["family"] for one in tested if one.level == "checkpoint" and one.numbers["p"] is not None]
    tests = max([size for size in families if isinstance(size, int)], default=0)
    counts = folder.pair_prompts

    def power_of(n: int) -> Callable[[float, float], float]:
        return lambda d, level: _power(d * math.sqrt(n), n - 1, level)

    for name, n, prompts in (
        ("pairs", len(counts), len(set(counts.values()))),
        ("prompts", answered, answered),
    ):
        path: Path = ("detectable", name)
        if not n:
            ledger.add(path, None)
            continue
        ledger.record(path, {"n": n, "prompts": prompts, "tests": tests})
        ledger.add((*path, "dz"), _smallest(power_of(prompts), 1))
        ledger.add((*path, "dz_holm"), _smallest(power_of(prompts), tests))
    seeds = [one.numbers["n"] for one in tested if one.level == "method" and one.numbers["p"] is not None]
    if not seeds:
        ledger.add(("detectable", "seeds"), None)
        return
    least = min(n for n in seeds if isinstance(n, int))
    ledger.record(("detectable", "seeds"), {"n": least, "tests": len(seeds)})

    def power(d: float, level: float) -> float:
        return _power(d * math.sqrt(least / 2), 2 * least - 2, level)

    ledger.add(("detectable", "seeds", "d"), _smallest(power, 1))
    ledger.add(("detectable", "seeds", "d_holm"), _smallest(power, len(seeds)))


def _power(noncentrality: float, degrees: int, level: float) -> float:
    return float(stats.nct.sf(stats.t.isf(level / 2, degrees), degrees, noncentrality))


def _smallest(power: Callable[[float, float], float], tests: int) -> float | None:
    """The effect that has 80% power at 5% / tests."""
    if tests < 1:
        return None
    return float(optimize.brentq(lambda effect: power(effect, 0.05 / tests) - 0.8, 1e-6, 50.0, xtol=1e-12))
