"""The package's statistics alone, on the tables that a report would give them: cheap enough for thousands of suites."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import combinations

import numpy as np
from false_claims_tally import ALPHA, Question, Tally
from false_claims_worlds import Draw, Level, Places, Truth, Vector, World, drawn, right

from align_bench.metrics.accuracy import accuracy, share
from align_bench.metrics.clusters import clustered_mean
from align_bench.metrics.mean import mean
from align_bench.metrics.reward import reward_std
from align_bench.metrics.win_rate import win_rate
from align_bench.stats.bootstrap import bca_means
from align_bench.stats.paired import Difference, holm, mcnemar_exact, paired_t
from align_bench.stats.seeds import (
    MIN_SEEDS,
    SeedNoise,
    between_methods,
    crossed,
    declared_noise,
    pooled_noise,
    seed_variance,
)

Test = Callable[[Vector, Vector, Places, bool], Difference]


def method_difference(a: Vector, b: Vector, prompts: Places, b_is_base: bool) -> Difference:
    """The product's test between two methods: a row per seed, a column per unit."""
    return crossed(a, b, prompts.tolist(), b_trained=not b_is_base).tested()


def by_statistics(world: World, rng: np.random.Generator, test: Test = method_difference) -> Tally:
    """Simulate a suite's scores and count what each statistic says of them.

    Args:
        world: what is true.
        rng: where the scores are drawn from.
        test: between two methods.
    """
    tally, draw, truth = Tally(), drawn(world, rng), Truth(world)
    if world.central:
        _one_checkpoint(world, draw, truth, tally)
        _two_checkpoints(world, draw, truth, tally)
    if world.seeds < MIN_SEEDS:
        _checkpoints(world, draw, truth, tally)
    if world.seeds >= MIN_SEEDS:
        _methods(world, draw, truth, tally, test)
    else:
        _methods_of_few_seeds(world, draw, tally)
    return tally


def _one_checkpoint(world: World, draw: Draw, truth: Truth, tally: Tally) -> None:
    scores, level = draw.scores[0][0], Level(float(draw.shifts[0, 0]))
    if world.pairs:
        found = accuracy(scores, np.zeros_like(scores), draw.prompts.tolist())
        tally.estimated("accuracy of pairs", found, truth.share(level))
        found = clustered_mean(scores, draw.prompts)
        tally.estimated("mean of pairs, clustered", found, truth.mean(level))
        return
    found = mean(scores, draw.prompts.tolist())
    tally.estimated("mean", found, truth.mean(level))
    if world.binary and world.samples == 1:
        found = share(float(scores.sum()), len(scores))
        tally.estimated("share (Wilson)", found, truth.share(level))
    if not world.binary:
        columns = scores.reshape(world.prompts, world.samples).T
        found = reward_std(*columns)
        tally.estimated("standard deviation", found, truth.std(level))


def _two_checkpoints(world: World, draw: Draw, truth: Truth, tally: Tally) -> None:
    """The first checkpoints of both methods."""
    (a, b), levels = (own[0] for own in draw.scores), [Level(float(own[0])) for own in draw.shifts]
    difference = truth.mean_or_share(levels[0]) - truth.mean_or_share(levels[1])
    left, other = _units(world, a), _units(world, b)
    found = _paired(world, left, other, draw.prompts)
    tally.covers("difference of checkpoints, paired t", found.low, found.high, difference)
    low, high = bca_means((left - other)[:, None], draw.prompts.tolist() if world.pairs else None)[0]
    tally.covers("difference of checkpoints, BCa", float(low), float(high), difference)
    if not (world.pairs or world.binary):
        first, second = (_samples(world, own) for own in (a, b))
        rate = win_rate(first, second)
        tally.estimated("win rate", rate, truth.win(*levels))


def _checkpoints(world: World, draw: Draw, truth: Truth, tally: Tally) -> None:
    """Every two checkpoints of different methods at one seed."""
    pairs = [(a, b, seed) for seed in range(world.seeds) for a, b in combinations(range(world.methods), 2)]
    p_values = [
        _paired(world, _units(world, draw.scores[a][seed]), _units(world, draw.scores[b][seed]), draw.prompts).p
        for a, b, seed in pairs
    ]
    shown = [p is not None and p < ALPHA for p in holm(p_values)]
    if all(draw.shifts[a, seed] == draw.shifts[b, seed] for a, b, seed in pairs):
        tally.add(Question("claims", "any checkpoint differs from another one, Holm: none does"), any(shown))
    else:
        tally.add(Question("says", "any checkpoint differs from another one, Holm"), any(shown))


def _samples(world: World, scores: Vector) -> dict[Hashable, list[float]]:
    return dict(enumerate(scores.reshape(world.prompts, world.samples).tolist()))


def _paired(world: World, a: Vector, b: Vector, prompts: Places) -> Difference:
    if world.pairs:
        return paired_t(a, b, prompts.tolist())
    return mcnemar_exact(a, b) if world.binary and world.samples == 1 else paired_t(a, b)


def _units(world: World, scores: Vector) -> Vector:
    """What is compared: right or wrong on each pair; the mean over a prompt's samples."""
    if world.pairs:
        return right(scores)
    means: Vector = scores.reshape(world.prompts, world.samples).mean(axis=1)
    return means


def _methods(world: World, draw: Draw, truth: Truth, tally: Tally, test: Test) -> None:
    tables = [np.stack([_units(world, seed) for seed in own]) for own in draw.scores]
    prompts = draw.prompts if world.pairs else np.arange(world.prompts)
    levels = [Level(float(effect), world.seed_noise) for effect in world.effects[: world.methods]]
    levels += [Level(0.0)] if world.base else []
    found = []
    for a, b in combinations(range(len(tables)), 2):
        base = b == world.methods
        difference = test(tables[a], tables[b], prompts, base)
        same = levels[a].shift == levels[b].shift
        true = 0.0 if same else truth.mean_or_share(levels[a]) - truth.mean_or_share(levels[b])
        what = f"difference of {'a method and the base' if base else 'methods'}"
        tally.covers(what, difference.low, difference.high, true)
        found.append((difference, true))
    shown = [p is not None and p < ALPHA for p in holm([difference.p for difference, _ in found])]
    wrong = [
        one and (not true or ((difference.difference or 0.0) > 0) != (true > 0))
        for one, (difference, true) in zip(shown, found, strict=True)
    ]
    if not any(true for _, true in found):
        tally.add(Question("claims", "any method differs from another one: none does", family=True), any(wrong))
    else:
        tally.add(Question("claims", "any method differs from another one: which is lower or equal"), any(wrong))
        tally.add(Question("finds", "the first method is higher than the second one"), shown[0])


def _methods_of_few_seeds(world: World, draw: Draw, tally: Tally) -> None:
    """What checkpoints say of their methods by the noise of seeds that is declared, or that two seeds each show."""
    noise: SeedNoise | None
    if world.declared:
        noise = declared_noise(world.seed_noise / world.spread, world.spread)
    else:
        noise = pooled_noise([seed_variance(own) for own in draw.scores if len(own) > 1])
    if noise is None:
        return
    p_values = []
    for a, b in combinations(range(world.methods), 2):
        found = between_methods(draw.scores[a][0], draw.scores[b][0], noise).tested()
        tally.covers("difference of methods of few seeds", found.low, found.high, 0.0)
        p_values.append(found.p)
    shown = [p is not None and p < ALPHA for p in p_values]
    tally.add(Question("says", "any of the intervals of methods of few seeds excludes 0, unadjusted"), any(shown))
    shown = [p is not None and p < ALPHA / len(p_values) for p in p_values]
    what = "any method of few seeds differs from another one, Bonferroni: none does"
    tally.add(Question("claims", what, True), any(shown))
