"""Differences between methods: crossed seeds × prompts, so that a claim holds for other seeds and for other prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from align_bench.metrics.clusters import Clusters, cluster_codes
from align_bench.stats.paired import Difference, Vector

MIN_SEEDS = 3

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SeedVariance:
    """How the mean of one method varies over its seeds.

    Attributes:
        seeds: how many there are.
        raw: variance of the seed means (ddof 1), the noise of the prompts in it.
        by_prompts: the part of it that comes with this many prompts, whatever the seeds: the residual mean square of
            the table seeds × prompts, divided by the prompts.
    """

    seeds: int
    raw: float
    by_prompts: float


@dataclass(frozen=True, slots=True)
class MethodDifference:
    """A difference between two methods, with what its test needs.

    Attributes:
        difference: mean of a − mean of b.
        parts: the variance of the difference, over seeds and prompts, in independent parts with their degrees of
            freedom: one part with Satterthwaite's, or one of the prompts and one of the seeds; none where it cannot be
            estimated.
        n: seeds of the smaller trained method.
        seed_share: share of the variance that comes from the seeds.
    """

    difference: float
    parts: tuple[tuple[float, float], ...]
    n: int
    seed_share: float | None = None

    def tested(self, level: float = 0.95) -> Difference:
        """Student's t-test of no difference, with its interval; of two parts as `half` says.

        Args:
            level: confidence of the interval; above 95% where it is adjusted for a family of several.
        """
        if not self.parts:
            return Difference(self.difference, None, None, None, None, self.n)
        half = self.half((1 - level) / 2)
        df = self.parts[0][1] if len(self.parts) == 1 else None
        p = min(1.0, 2 * self.tail(abs(self.difference)))
        return Difference(self.difference, self.difference - half, self.difference + half, p, None, self.n, df)

    def half(self, tail: float) -> float:
        """How far a bound lies from the difference: √(Σ variance · t²), each part with its own quantile.

        Args:
            tail: what lies beyond the bound, below ½.
        """
        from scipy.special import stdtrit

        return math.sqrt(sum(variance * float(stdtrit(df, tail)) ** 2 for variance, df in self.parts))

    def tail(self, distance: float) -> float:
        """The p-value, of one side, of a difference that lies so far above 0: the tail whose `half` that is."""
        if distance <= 0:
            return 0.5 if distance == 0 else 1 - self.tail(-distance)
        from scipy.optimize import brentq
        from scipy.special import stdtr

        if len(self.parts) == 1:
            ((variance, df),) = self.parts
            return float(stdtr(df, -distance / math.sqrt(variance)))
        # In logarithms, since a p-value may be as small as numbers get; beyond 1e-217 scipy's quantiles are not right.
        least = -500.0
        if self.half(math.exp(least)) <= distance:
            return math.exp(least)
        return math.exp(brentq(lambda log: self.half(math.exp(log)) - distance, least, math.log(0.5), xtol=1e-13))


def by_prompt(table: Matrix, clusters: Clusters | None = None) -> Matrix:
    """Values of prompts in place of those of pairs, such that all prompts weigh the same and each mean is kept.

    A prompt's value is linear in its pairs, mean + (prompts / pairs) · Σ (y − mean). So the variance over prompts,
    divided by their number, is the squared clustered standard error of `metrics.clusters.clustered_fit`.

    Args:
        table: a row per seed, a column per pair.
        clusters: the prompt of each pair; None when each is its own.

    Returns:
        Shape [seeds, prompts].
    """
    codes = cluster_codes(clusters, table.shape[1])
    means = table.mean(axis=1, keepdims=True)
    sums = np.array([np.bincount(codes, row) for row in table - means])
    prompts = sums.shape[1]
    values: Matrix = means + prompts / table.shape[1] * sums
    return values


def seed_variance(values: Matrix) -> SeedVariance:
    """The variance over the seeds of one method.

    Args:
        values: shape [seeds, prompts], at least two of each, as of `by_prompt`.
    """
    seeds, prompts = values.shape
    means = values.mean(axis=1)
    residuals = values - means[:, None] - values.mean(axis=0) + values.mean()
    interaction = float(np.sum(residuals**2)) / ((seeds - 1) * (prompts - 1))
    return SeedVariance(seeds, float(np.var(means, ddof=1)), interaction / prompts)


def crossed(a: Matrix, b: Matrix, clusters: Clusters | None = None, *, b_trained: bool = True) -> MethodDifference:
    """The difference between two methods, over seeds and prompts at once.

    Its variance is s²_a/k_a + s²_b/k_b + P − e_a/(G k_a) − e_b/(G k_b), and P at least: s² is the variance of a
    method's k seed means, P that of the prompts' mean differences divided by the G prompts, and e the residual mean
    square of seeds × prompts, whose part in s² stands in P as well. Degrees of freedom are Satterthwaite's of the three
    first terms, and at least those of the smallest.

    A base that was not trained has no variance over seeds; that of its one draw of answers is in P. There is one
    estimate of seeds then, of which Satterthwaite's degrees are too many (91% are covered with three seeds), and P and
    s²_a/k_a have each their own t quantile. Nothing is subtracted: a difference that happens to leave nothing of the
    seeds would be shown at p = 0.001 nine times too often. That covers 96% to 99%.

    Args:
        a, b: a row per seed, a column per unit (pair or prompt), the same units in both.
        clusters: the prompt of each unit; None when each is its own.
        b_trained: whether b is a method with seeds, and not the base, one checkpoint.

    Returns:
        Without a variance where a trained method has fewer than three seeds, for fewer than two prompts, and where
        nothing varies.

    Raises:
        ValueError: no seed, no unit, or a value that is not finite.
    """
    if not (a.size and b.size and np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a difference between methods needs finite values, of at least one seed and one unit")
    left, right = by_prompt(a, clusters), by_prompt(b, clusters)
    return _crossed(left, right if b_trained else None, left.mean(axis=0) - right.mean(axis=0))


def crossed_wins(wins: Matrix, *, b_trained: bool = True) -> MethodDifference:
    """How often answers of one method win against those of another, over seeds and prompts; as `crossed`.

    Args:
        wins: shape [seeds of a, seeds of b, prompts], as `stats.bootstrap.won` returns them.
        b_trained: as of `crossed`.
    """
    return _crossed(wins.mean(axis=1), wins.mean(axis=0) if b_trained else None, wins.mean(axis=(0, 1)))


def _crossed(a: Matrix, b: Matrix | None, per_prompt: Vector) -> MethodDifference:
    """The difference of which each prompt has a value, and the tables of the sides that have seeds."""
    sides = [side for side in (a, b) if side is not None]
    n = min(map(len, sides))
    difference, prompts = float(np.mean(per_prompt)), len(per_prompt)
    if n < MIN_SEEDS or prompts < 2:
        return MethodDifference(difference, (), n)
    seeds = list(map(seed_variance, sides))
    terms = [(one.raw / one.seeds, one.seeds - 1) for one in seeds]
    twice = sum(one.by_prompts / one.seeds for one in seeds)
    scale = float(max(np.max(np.abs(side)) for side in sides))
    return _joined(difference, per_prompt, terms, twice, n, scale)


def _joined(
    difference: float, per_prompt: Vector, seeds: Sequence[tuple[float, float]], twice: float, n: int, scale: float
) -> MethodDifference:
    """The variance over prompts and seeds together, in two parts where one estimate of seeds is all there is.

    Args:
        difference: the estimate.
        per_prompt: its value on each prompt.
        seeds: for each method that has them, the variance that its seeds add, and the degrees of freedom of that.
        twice: what these variances share with that of the prompts.
        n: of the result.
        scale: largest absolute value; a standard error that rounding makes is none.
    """
    prompts = prompt_variance(per_prompt)
    total = max(prompts, prompts + sum(term for term, _ in seeds) - twice)
    if total <= (1e-12 * scale) ** 2:
        return MethodDifference(difference, (), n)
    of_prompts, share = (prompts, len(per_prompt) - 1.0), 1 - prompts / total
    if len(seeds) == 1:
        parts = (of_prompts, seeds[0])
        return MethodDifference(difference, tuple(part for part in parts if part[0] > 0), n, share)
    every = [of_prompts, *seeds]
    df = total**2 / sum(term**2 / own for term, own in every)
    return MethodDifference(difference, ((total, max(df, min(own for _, own in every))),), n, share)


def prompt_variance(per_prompt: Vector) -> float:
    """Variance of the mean over prompts.

    Args:
        per_prompt: a value for each of at least two prompts, as of `by_prompt`.
    """
    return float(np.var(per_prompt, ddof=1)) / len(per_prompt)


@dataclass(frozen=True, slots=True)
class SeedNoise:
    """What is known of the variance of a method's mean over seeds, where a method has too few of them.

    Attributes:
        variance: of a method's mean over seeds, without the noise of the prompts.
        raw: the same with it.
        df: its degrees of freedom; infinite where it is declared.
        declared: whether the suite declares it, and not its own seeds.
    """

    variance: float
    raw: float
    df: float
    declared: bool


def declared_noise(share: float, spread: float) -> SeedNoise:
    """A seed noise that the suite declares.

    Args:
        share: in standard deviations of the difference between two checkpoints on one prompt.
        spread: that standard deviation.
    """
    return SeedNoise((share * spread) ** 2, (share * spread) ** 2, math.inf, declared=True)


def pooled_noise(methods: Sequence[SeedVariance]) -> SeedNoise | None:
    """The seed noise that methods with at least two seeds show, each weighted by its degrees of freedom.

    None for fewer than two degrees of freedom: with one, intervals cover in as few as 86% of simulations.
    """
    df = sum(one.seeds - 1 for one in methods)
    if df < 2:
        return None
    raw = sum((one.seeds - 1) * one.raw for one in methods) / df
    by_prompts = sum((one.seeds - 1) * one.by_prompts for one in methods) / df
    return SeedNoise(max(0.0, raw - by_prompts), raw, df, declared=False)


def between_methods(a: Vector, b: Vector, noise: SeedNoise, *, b_trained: bool = True) -> MethodDifference:
    """The difference between two methods of which each has one seed, by a seed noise that is known from elsewhere.

    Its variance is that of the prompts, and the noise once for each trained side.

    Args:
        a, b: a value per prompt, at least two, as of `by_prompt`.
        noise: of one seed.
        b_trained: as of `crossed`.
    """
    trained = 2 if b_trained else 1
    terms = [] if noise.raw == 0 else [(trained * noise.raw, noise.df)]
    twice = trained * (noise.raw - noise.variance)
    scale = float(max(np.max(np.abs(a)), np.max(np.abs(b))))
    return _joined(float(np.mean(a) - np.mean(b)), a - b, terms, twice, 1, scale)
