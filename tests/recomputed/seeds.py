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
    """A difference between methods, with the parts of its variance and their degrees of freedom; untested without."""

    difference: float
    parts: tuple[tuple[float, float], ...] = ()
    seed_share: float | None = None

    @property
    def df(self) -> float | None:
        return self.parts[0][1] if len(self.parts) == 1 else None

    def reach(self, alpha: float) -> float:
        return math.sqrt(sum(variance * float(stats.t.ppf(1 - alpha / 2, df)) ** 2 for variance, df in self.parts))

    def interval(self, alpha: float = 0.05) -> tuple[float | None, float | None]:
        if not self.parts:
            return None, None
        return self.difference - self.reach(alpha), self.difference + self.reach(alpha)

    def p(self) -> float | None:
        return 2 * self._beyond(abs(self.difference)) if self.parts else None

    def p_tost(self, margin: float) -> float | None:
        return self._beyond(margin - abs(self.difference)) if self.parts else None

    def _beyond(self, distance: float) -> float:
        """The one-sided p-value: half the level whose interval reaches so far, found by halving."""
        if distance < 0:
            return 1 - self._beyond(-distance)
        if len(self.parts) == 1:
            ((variance, df),) = self.parts
            return float(stats.t.sf(distance / math.sqrt(variance), df))
        low, high = 0.0, 1.0
        for _ in range(200):
            middle = math.sqrt(low * high) if low else high / 1e6
            if middle < 1e-200:
                break
            low, high = (middle, high) if self.reach(middle) > distance else (low, middle)
        return high / 2


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
    return joined(difference, per_prompt, terms, sum(one.by_prompts / one.seeds for one in found))


def joined(difference: float, per_prompt: Column, seeds: Sequence[tuple[float, float]], twice: float) -> Between:
    """The variance of prompts and seeds together, by Satterthwaite's degrees of freedom, those of the smallest part at
    least; with one estimate of the seeds, each has its own.
    """
    count = len(per_prompt)
    of_prompts = float(((per_prompt - per_prompt.mean()) ** 2).sum() / (count - 1) / count)
    total = max(of_prompts, of_prompts + sum(term for term, _ in seeds) - twice)
    if total < 1e-24:
        return Between(difference)
    every = [(of_prompts, count - 1.0), *seeds]
    if len(seeds) == 1:
        parts = tuple(every)
        return Between(difference, tuple(part for part in parts if part[0] > 0), 1 - of_prompts / total)
    df = total**2 / sum(term**2 / own for term, own in every)
    return Between(difference, ((total, max(df, min(own for _, own in every))),), 1 - of_prompts / total)


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
    if df < 2:
        return None
    raw = sum((one.seeds - 1) * one.raw for one in spreads) / df
    own = raw - sum((one.seeds - 1) * one.by_prompts for one in spreads) / df
    return Noise(max(0.0, own), raw, float(df), False)


def with_one_seed(a: Column, b: Column, noise: Noise, trained: int) -> Between:
    """Two checkpoints as draws of their methods: the prompts' variance, and the noise once for each trained one."""
    terms = [(trained * noise.raw, noise.df)] if noise.raw else []
    return joined(float(a.mean() - b.mean()), a - b, terms, trained * (noise.raw - noise.variance))
