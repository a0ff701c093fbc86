"""Differences between methods, over seeds and prompts at once: crossed variances, Satterthwaite's degrees."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from tests.recomputed.arithmetic import Column, grouped

MIN_SEEDS = 3


@dataclass(frozen=True)
class Between:
    """A difference between methods. Without a variance nothing is tested."""

    difference: float
    variance: float | None = None
    df: float = math.nan
    seed_share: float | None = None

    def interval(self) -> tuple[float | None, float | None]:
        if self.variance is None:
            return None, None
        reach = float(stats.t.ppf(0.975, self.df)) * math.sqrt(self.variance)
        return self.difference - reach, self.difference + reach

    def p(self) -> float | None:
        if self.variance is None:
            return None
        return float(2 * stats.t.sf(abs(self.difference) / math.sqrt(self.variance), self.df))

    def p_tost(self, margin: float) -> float | None:
        if self.variance is None:
            return None
        error = math.sqrt(self.variance)
        below = stats.t.cdf((self.difference - margin) / error, self.df)
        above = stats.t.sf((self.difference + margin) / error, self.df)
        return float(max(below, above))


@dataclass(frozen=True)
class Spread:
    """How one method's mean varies over its seeds: as it is, and the part of it that prompts alone would make."""

    seeds: int
    raw: float
    by_prompts: float


def prompt_values(row: Column, prompts: Sequence[Hashable]) -> Column:
    """A value for each prompt: mean + (prompts / pairs) · Σ (y − mean) over its pairs."""
    mean = row.mean()
    own = grouped(row, prompts)
    return np.array([mean + len(own) / len(row) * (values - mean).sum() for values in own.values()])


def seed_spread(values: Column) -> Spread:
    """Of a method's values, shape [seeds, prompts]."""
    seeds, prompts = values.shape
    rows, columns, middle = values.mean(axis=1), values.mean(axis=0), values.mean()
    squares = sum((values[i, j] - rows[i] - columns[j] + middle) ** 2 for i in range(seeds) for j in range(prompts))
    residual = float(squares) / ((seeds - 1) * (prompts - 1))
    return Spread(seeds, float(((rows - middle) ** 2).sum() / (seeds - 1)), residual / prompts)


def crossed(sides: Sequence[Column], per_prompt: Column) -> Between:
    """s²_a/k_a + s²_b/k_b + P − e_a/(G k_a) − e_b/(G k_b), and P at least.

    Args:
        sides: of each method that has seeds its values, shape [seeds, prompts].
        per_prompt: the difference on each prompt.
    """
    difference = float(per_prompt.mean())
    if min(len(side) for side in sides) < MIN_SEEDS or len(per_prompt) < 2:
        return Between(difference)
    found = [seed_spread(side) for side in sides]
    terms = [(one.raw / one.seeds, one.seeds - 1.0) for one in found]
    return satterthwaite(difference, per_prompt, terms, sum(one.by_prompts / one.seeds for one in found))


def satterthwaite(difference: float, per_prompt: Column, seeds: Sequence[tuple[float, float]], twice: float) -> Between:
    """The variance of prompts and seeds together; the degrees of freedom are those of the smallest part at least."""
    count = len(per_prompt)
    of_prompts = float(((per_prompt - per_prompt.mean()) ** 2).sum() / (count - 1) / count)
    total = max(of_prompts, of_prompts + sum(term for term, _ in seeds) - twice)
    if total < 1e-24:
        return Between(difference)
    parts = [(of_prompts, count - 1.0), *seeds]
    df = total**2 / sum(term**2 / own for term, own in parts)
    return Between(difference, total, max(df, min(own for _, own in parts)), 1 - of_prompts / total)


@dataclass(frozen=True)
class Noise:
    """What one seed may differ by from another: without the prompts' part, with it, and its degrees of freedom."""

    variance: float
    raw: float
    df: float
    declared: bool


def pooled(spreads: Sequence[Spread]) -> Noise | None:
    """By degrees of freedom."""
    df = sum(one.seeds - 1 for one in spreads)
    if df == 0:
        return None
    raw = sum((one.seeds - 1) * one.raw for one in spreads) / df
    own = raw - sum((one.seeds - 1) * one.by_prompts for one in spreads) / df
    return Noise(max(0.0, own), raw, float(df), False)


def with_one_seed(a: Column, b: Column, noise: Noise, trained: int) -> Between:
    """Two checkpoints as draws of their methods: the prompts' variance, and the noise once for each trained one."""
    terms = [(trained * noise.raw, noise.df)] if noise.raw else []
    return satterthwaite(float(a.mean() - b.mean()), a - b, terms, trained * (noise.raw - noise.variance))
