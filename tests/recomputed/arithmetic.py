"""Intervals and tests as text-books give them: numpy, scipy's distributions, and nothing of the product."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Column = npt.NDArray[np.float64]
Numbers = Sequence[float | None]
Statistic = Callable[[Column], Column]  # of weights, shape [resamples, rows]

Z = float(stats.norm.ppf(0.975))
# Two bootstraps of other seeds take a bound from levels that differ by luck: its standard deviation is 0.004 with some
# thousand resamples, bias correction included. In the middle of a normal distribution it is 15% of the half width.
LUCK = 0.014
SLACK = 0.005  # of the width: kinds of quantiles differ by that
RESAMPLES = 4_000


@dataclass(frozen=True)
class Drawn:
    """Bounds of a bootstrap.

    Attributes:
        low, high: by this side's draws.
        low_range, high_range: where another seed's may be.
        wanted: as of `Found`.
    """

    low: float
    high: float
    low_range: tuple[float, float]
    high_range: tuple[float, float]
    wanted: int | None = None


@dataclass(frozen=True)
class Found:
    """A number with its interval, as this side finds it.

    Attributes:
        value, low, high, n: as the report's.
        drawn: the bounds of a bootstrap, which another seed moves.
        wanted: observations that the interval wants, where there are fewer.
        relative: what the report's number may be off by, as a share of it.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    drawn: Drawn | None = None
    wanted: int | None = None
    relative: float = 1e-6


NOTHING = Found(None)


def known(*columns: Numbers | Column) -> tuple[Column, ...]:
    """The rows that have a finite number in every column."""
    rows = [row for row in zip(*columns, strict=True) if all(x is not None and math.isfinite(x) for x in row)]
    return tuple(np.array([row[place] for row in rows], dtype=np.float64) for place in range(len(columns)))


def alike(values: Column) -> bool:
    return bool(np.max(values) - np.min(values) <= 1e-12 * np.max(np.abs(values)))


def wilson(count: float, n: int) -> Found:
    """Wilson's score interval; of a half count the lower bound is that of its floor, the upper that of its ceiling."""
    if n == 0:
        return NOTHING

    def bounds(k: int) -> tuple[float, float]:
        p = k / n
        middle, half = (p + Z**2 / (2 * n)), Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
        low, high = (middle - half) / (1 + Z**2 / n), (middle + half) / (1 + Z**2 / n)
        return 0.0 if k == 0 else low, 1.0 if k == n else high

    return Found(count / n, bounds(math.floor(count))[0], bounds(math.ceil(count))[1], n)


def wanted(influences: Column, n: int | None = None, factor: float = 25) -> int | None:
    """Cochran's rule: factor × skewness² observations, where there are fewer.

    Args:
        influences: of each group of observations.
        n: observations; None where each is a group.
        factor: as of the statistic.
    """
    count = len(influences) if n is None else n
    gaps = influences - influences.mean()
    deviation = math.sqrt(float((gaps**2).mean()))
    skewness = float(((gaps / deviation) ** 3).mean()) if deviation > 0 else 0.0
    least = factor * skewness**2 * count / len(influences)
    return math.ceil(least) if least > count else None


def student(values: Column) -> Found:
    """Mean and Student's t interval."""
    n = len(values)
    if n == 0:
        return NOTHING
    centre = float(values.sum() / n)
    if alike(values):
        return Found(centre, n=n)
    error = math.sqrt(((values - centre) ** 2).sum() / (n - 1) / n)
    reach = float(stats.t.ppf(0.975, n - 1)) * error
    return Found(centre, centre - reach, centre + reach, n, wanted=wanted(values))


def grouped(values: Column, groups: Sequence[Hashable]) -> dict[Hashable, Column]:
    members: dict[Hashable, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        members.setdefault(group, []).append(float(value))
    return {group: np.array(own) for group, own in members.items()}


def clustered_error(values: Column, groups: Sequence[Hashable]) -> tuple[float, float, int]:
    """The mean of all values, its cluster-robust standard error (× G / (G − 1)), and the number of groups."""
    centre = float(values.sum() / len(values))
    sums = [float((own - centre).sum()) for own in grouped(values, groups).values()]
    count = len(sums)
    variance = count / (count - 1) * sum(total**2 for total in sums) / len(values) ** 2 if count > 1 else math.nan
    return centre, math.sqrt(variance), count


def clustered(values: Column, groups: Sequence[Hashable]) -> Found:
    """Mean of all values, each of the same weight, with the t interval of G − 1 degrees of freedom."""
    if not len(values):
        return NOTHING
    means = np.array([own.mean() for own in grouped(values, groups).values()])
    if np.max(means) - np.min(means) <= 1e-12 * np.max(np.abs(values)):
        return Found(float(values.mean()), n=len(values))
    centre, error, count = clustered_error(values, groups)
    reach = float(stats.t.ppf(0.975, count - 1)) * error
    influences = np.array([(own - centre).sum() for own in grouped(values, groups).values()])
    return Found(centre, centre - reach, centre + reach, len(values), wanted=wanted(influences, len(values)))


def of_pairs(values: Column, groups: Sequence[Hashable]) -> Found:
    """Mean over pairs: clustered where pairs share a prompt, Student's where none does."""
    return student(values) if len(set(groups)) == len(groups) else clustered(values, groups)


def by_prompt(values: Numbers | Column, prompts: Sequence[Hashable]) -> Found:
    """Mean over prompts of the means of their values."""
    return student(prompt_means(values, prompts)[1])


def prompt_means(values: Numbers | Column, prompts: Sequence[Hashable]) -> tuple[list[Hashable], Column]:
    kept = [(x, prompt) for x, prompt in zip(values, prompts, strict=True) if x is not None and math.isfinite(x)]
    groups = grouped(np.array([x for x, _ in kept]), [prompt for _, prompt in kept])
    return list(groups), np.array([own.sum() / len(own) for own in groups.values()])


def right(margins: Column) -> Column:
    return np.where(margins > 0, 1.0, np.where(margins < 0, 0.0, 0.5))


def share(values: Column, groups: Sequence[Hashable]) -> Found:
    """Mean of what is 1, ½ or 0 in each pair: Wilson's interval, or the clustered one, cut off at 0 and 1.

    Where the prompts are all alike it is Wilson's of the prompts.
    """
    if len(set(groups)) == len(groups):
        return wilson(float(values.sum()), len(values))
    found, prompts = clustered(values, groups), len(set(groups))
    if found.low is None or found.high is None:
        of_prompts = wilson(round(2 * prompts * float(values.mean())) / 2, prompts)
        return found if prompts < 2 else replace(found, low=of_prompts.low, high=of_prompts.high)
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


def accuracy(better: Numbers, worse: Numbers, prompts: Sequence[Hashable]) -> Found:
    """Share of pairs with the higher score on the better answer, ties ½."""
    left, other, groups = with_prompts(prompts, better, worse)
    return share(right(left - other), groups)


def with_prompts(prompts: Sequence[Hashable], *columns: Numbers) -> Any:
    """The rows that have a finite number in every column, and their prompts."""
    *found, place = known(*columns, [float(number) for number in range(len(prompts))])
    return [*found, [prompts[int(number)] for number in place]]


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment; None is no test."""
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    running = 0.0
    for step, (p, place) in enumerate(order):
        running = max(running, min(1.0, (len(order) - step) * p))
        adjusted[place] = running
    return adjusted


def places(groups: Sequence[Hashable]) -> list[npt.NDArray[np.intp]]:
    """The rows of each group."""
    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    return [np.array(own, dtype=np.intp) for own in members.values()]


def bootstrap(statistic: Statistic, groups: Sequence[Hashable], n: int, alpha: float = 0.05) -> list[Drawn | None]:
    """BCa bounds of each value of a statistic over resampled groups (Efron 1987), expanded for few (Hesterberg 2015).

    Bias is from the share of draws below the point, acceleration from the jackknife over groups. None for one group
    alone, and for a value that no resample changes.

    Args:
        statistic: how often each row counts, shape [resamples, rows] → a value or several each.
        groups: the group of each row.
        n: observations that the value counts.
        alpha: one less the interval's level.
    """
    names = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    codes = np.array([names[group] for group in groups])
    point = _columns(statistic(np.ones((1, len(codes)))))[0]
    if len(names) < 2:
        return [None] * len(point)
    drawn = _columns(statistic(resampled_counts(len(names))[:, codes]))
    jackknife = _columns(statistic((1 - np.eye(len(names)))[:, codes]))
    expanded = stats.t.ppf(1 - alpha / 2, len(names) - 1) * math.sqrt(len(names) / (len(names) - 1))
    bounds = [_bca(*own, n, expanded) for own in zip(drawn.T, point, jackknife.T, strict=True)]
    if len(names) >= 8:
        return bounds
    few = math.ceil(8 * n / len(names))
    return [None if one is None else replace(one, wanted=one.wanted or few) for one in bounds]


def _bca(drawn: Column, point: float, jackknife: Column, n: int, expanded: float) -> Drawn | None:
    finite, jackknife = drawn[np.isfinite(drawn)], jackknife[np.isfinite(jackknife)]
    if len(finite) < 0.95 * len(drawn) or len(jackknife) < 2 or alike(finite) or alike(jackknife):
        return None
    bias = stats.norm.ppf((np.sum(finite < point) + np.sum(finite <= point)) / (2 * len(finite)))
    off = jackknife.mean() - jackknife
    acceleration = (off**3).sum() / (6 * (off**2).sum() ** 1.5)
    ends = [bias - expanded, bias + expanded]
    if not math.isfinite(bias) or max(acceleration * end for end in ends) >= 1:
        return None
    levels = np.array([stats.norm.cdf(bias + end / (1 - acceleration * end)) for end in ends])
    return replace(bounds_at(finite, levels), wanted=wanted(off, n))


def bounds_at(drawn: Column, levels: Column) -> Drawn:
    """Quantiles of draws, and where those of another seed's may be."""
    luck = LUCK * np.sqrt(levels * (1 - levels) / (0.025 * 0.975))
    low, high = np.quantile(drawn, levels)
    least = np.quantile(drawn, np.clip(levels - luck, 0, 1), method="lower")
    most = np.quantile(drawn, np.clip(levels + luck, 0, 1), method="higher")
    slack = SLACK * (high - low)
    return Drawn(
        float(low),
        float(high),
        (float(least[0] - slack), float(most[0] + slack)),
        (float(least[1] - slack), float(most[1] + slack)),
    )


def _columns(values: Column) -> Column:
    return values[:, None] if values.ndim == 1 else values


@cache
def resampled_counts(groups: int) -> Column:
    """How often each group is drawn in each resample, shape [resamples, groups]."""
    rng = np.random.default_rng(31)
    return rng.multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES).astype(np.float64)


def weighted_mean(weights: Column, values: Column) -> Column:
    return np.asarray((weights @ values) / weights.sum(axis=1))


def weighted_std(weights: Column, values: Column) -> Column:
    """Unbiased, of values that stand `weights` times."""
    centred = values - values.mean()
    total = weights.sum(axis=1)
    squares = weights @ centred**2 - (weights @ centred) ** 2 / total
    return np.asarray(np.sqrt(squares / (total - 1)))


def weighted_pearson(weights: Column, a: Column, b: Column) -> Column:
    """Pearson's correlation; a and b of shape [rows] or [resamples, rows]."""
    total = weights.sum(axis=1, keepdims=True)
    left, other = (one - (weights * one).sum(axis=1, keepdims=True) / total for one in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(
            (weights * left * other).sum(1) / np.sqrt((weights * left**2).sum(1) * (weights * other**2).sum(1))
        )


def weighted_ranks(weights: Column, values: Column) -> Column:
    """The rank of each value among values that stand `weights` times, equal ones in the middle of their places."""
    unique, places_ = np.unique(values, return_inverse=True)
    counts = weights @ (places_[:, None] == np.arange(len(unique)))
    return np.asarray((np.cumsum(counts, axis=1) - counts + (counts + 1) / 2)[:, places_])


def pearson(a: Column, b: Column) -> float:
    left, other = a - a.mean(), b - b.mean()
    scale = math.sqrt(float((left**2).sum() * (other**2).sum()))
    return float((left * other).sum()) / scale if scale > 0 else math.nan


def least_squares(outcome: Column, design: Column) -> Column:
    return np.asarray(np.linalg.solve(design.T @ design, design.T @ outcome), dtype=np.float64)


def sandwich(outcome: Column, design: Column, groups: Sequence[Hashable]) -> tuple[Column, Column]:
    """Least squares and its cluster-robust standard errors, with the correction G / (G − 1) · (N − 1) / (N − K)."""
    fit = least_squares(outcome, design)
    residuals = outcome - design @ fit
    rows = places(groups)
    meat = sum(np.outer(score, score) for own in rows if (score := design[own].T @ residuals[own]) is not None)
    bread = np.linalg.inv(design.T @ design)
    count, coefficients = design.shape
    correction = len(rows) / (len(rows) - 1) * (count - 1) / (count - coefficients)
    return fit, np.sqrt(np.diag(bread @ meat @ bread) * correction)
