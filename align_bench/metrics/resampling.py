"""One interval for every statistic that has none in closed form: BCa over prompts, all from the same resamples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from align_bench.metrics.clusters import Codes
from align_bench.metrics.finite import Column, is_constant
from align_bench.metrics.mean import wanted
from align_bench.records import Estimate

Matrix = npt.NDArray[np.float64]
Statistic = Callable[[Matrix], Matrix]
"""How often each prompt was drawn, shape [..., prompts] → values, shape [..., values]; NaN where undefined."""


@dataclass(frozen=True, slots=True)
class OfSums:
    """A `Statistic` that needs no more of the prompts drawn than sums over them, which many of them share.

    Attributes:
        table: what is summed, shape [prompts, sums].
        function: from sums, shape [..., sums], to values, shape [..., values].
    """

    table: Matrix
    function: Callable[[Matrix], Matrix]

    def __call__(self, counts: Matrix) -> Matrix:
        return self.function(counts @ self.table)


RESAMPLES = 9_999
FEWEST_PROMPTS = 8
MOST_PROMPTS = 20_000
GROUPS = 1_000
# Numbers in a batch of counts: 1 MB. Larger batches are no faster; much smaller ones spend their time in Python.
_BATCH = 2**17


def estimates(statistic: Statistic, prompts: int, n: int | None = None, level: float = 0.95) -> list[Estimate]:
    """Values of a statistic with their 95% BCa intervals (Efron 1987), prompts resampled.

    9,999 resamples, the same for all statistics of so many prompts; the acceleration is that of leaving out a prompt
    at a time. Its ends are read off at √(n / (n − 1)) times Student's quantile for n prompts, not at the normal one
    (the expanded percentile interval of Hesterberg 2015, The American Statistician 69, 371–386), without which it is
    too narrow for few prompts: of 8, in the test's simulation, it covers 95% of ratios of sums instead of 86%. Above
    20,000 prompts it is the t interval of a jackknife that leaves out one in 1,000 groups of them. In simulations of
    100 prompts it covers 95% of means of normal values, 92% of lognormal ones. Where Cochran's rule wants more prompts,
    or there are fewer than 8, an estimate says so (`wanted`).

    Args:
        statistic: of how often each prompt was drawn.
        prompts: their number.
        n: observations that the estimates count, where these are not the prompts.
        level: confidence of the intervals, where it is not 95%.

    Returns:
        An estimate a value. The value is None where it is undefined; the interval for fewer than two prompts, for a
        value that no resample changes, and where more than one resample in 20 leaves it undefined.
    """
    count = prompts if n is None else n
    values = _batched(statistic, [np.ones((1, prompts))])[0]
    if prompts < 2:
        return [Estimate(float(one) if math.isfinite(one) else None, n=count) for one in values]
    left_out = _left_out(statistic, prompts)
    if prompts > MOST_PROMPTS:
        return [_jackknifed(one, own, count, level) for one, own in zip(values, left_out.T, strict=True)]
    drawn = resampled(statistic, prompts)
    return [_bca(*one, prompts, count, level) for one in zip(values, drawn.T, left_out.T, strict=True)]


def resampled(statistic: Statistic, prompts: int) -> Matrix:
    """The statistic of each of the shared resamples, shape [resamples, values]."""
    counts, size = _counts(prompts), max(1, _BATCH // prompts)
    return _batched(statistic, (counts[at : at + size].astype(np.float64) for at in range(0, RESAMPLES, size)))


def usable(drawn: Column) -> Column | None:
    """The finite ones of a statistic's resamples; None where more than one in 20 is not, or none differs."""
    finite: Column = drawn[np.isfinite(drawn)]
    return None if len(finite) < 0.95 * len(drawn) or is_constant(finite) else finite


def by_cluster(columns: Sequence[Column], codes: Codes) -> Matrix:
    """Sums of columns over the rows of each prompt, shape [prompts, columns]; counts @ them are a resample's."""
    return np.stack([np.bincount(codes, column) for column in columns], axis=1)


@lru_cache(maxsize=4)
def _counts(prompts: int) -> npt.NDArray[np.uint8]:
    """How often each prompt is in each resample: the rows that scipy's `bootstrap` draws with a generator of seed 0."""
    rng = np.random.default_rng(0)
    counts = np.empty((RESAMPLES, prompts), dtype=np.uint8)
    size = max(1, _BATCH // prompts)
    for at in range(0, RESAMPLES, size):
        rows = rng.integers(0, prompts, (min(size, RESAMPLES - at), prompts))
        rows += prompts * np.arange(len(rows))[:, None]
        counts[at : at + len(rows)] = np.bincount(rows.ravel(), minlength=rows.size).reshape(rows.shape)
    return counts


def _left_out(statistic: Statistic, prompts: int) -> Matrix:
    """The statistic without each prompt, or each of 1,000 groups of them; shape [prompts or groups, values]."""
    groups = np.arange(prompts)
    if prompts > MOST_PROMPTS:
        groups = np.random.default_rng(0).permutation(prompts) % GROUPS
    numbers, size = np.unique(groups)[:, None], max(1, _BATCH // prompts)
    batches = (groups != numbers[at : at + size] for at in range(0, len(numbers), size))
    return _batched(statistic, (batch.astype(np.float64) for batch in batches))


def _batched(statistic: Statistic, batches: Iterable[Matrix]) -> Matrix:
    with np.errstate(divide="ignore", invalid="ignore"):  # undefined is NaN
        if isinstance(statistic, OfSums):  # once for all batches, since each call takes as long as a batch's numbers
            return statistic.function(np.concatenate([batch @ statistic.table for batch in batches]))
        return np.concatenate([statistic(batch) for batch in batches])


def _bca(value: float, drawn: Column, left_out: Column, prompts: int, n: int, level: float) -> Estimate:
    from scipy.special import ndtr, ndtri, stdtrit

    if not math.isfinite(value):
        return Estimate(None, n=n)
    finite, known = usable(drawn), left_out[np.isfinite(left_out)]
    if finite is None or len(known) < 2 or is_constant(known):
        return Estimate(float(value), n=n)
    bias = ndtri((np.mean(finite < value) + np.mean(finite <= value)) / 2)
    gaps = known.mean() - known
    acceleration = np.sum(gaps**3) / (6 * np.sum(gaps**2) ** 1.5)
    expanded = math.sqrt(prompts / (prompts - 1)) * stdtrit(prompts - 1, (1 + level) / 2)
    ends = bias + expanded * np.array([-1.0, 1.0])
    if not np.isfinite(bias) or (acceleration * ends >= 1).any():  # beyond every resample: nothing to read off
        return Estimate(float(value), n=n)
    low, high = np.quantile(finite, ndtr(bias + ends / (1 - acceleration * ends)))
    few = math.ceil(FEWEST_PROMPTS * n / prompts) if prompts < FEWEST_PROMPTS else None
    return Estimate(float(value), float(low), float(high), n, wanted(gaps, n) or few)


def _jackknifed(value: float, left_out: Column, n: int, level: float) -> Estimate:
    from scipy.stats import t

    if not math.isfinite(value):
        return Estimate(None, n=n)
    groups = len(left_out)
    if not np.isfinite(left_out).all() or is_constant(left_out):
        return Estimate(float(value), n=n)
    error = math.sqrt((groups - 1) * np.var(left_out))
    half = float(t.ppf((1 + level) / 2, groups - 1)) * error
    return Estimate(float(value), value - half, value + half, n, wanted(left_out, n))
