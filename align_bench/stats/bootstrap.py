"""Bootstrap intervals of differences over prompts, and resamples of seeds and prompts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from align_bench.metrics.accuracy import wins_of
from align_bench.metrics.clusters import Clusters, cluster_codes
from align_bench.metrics.resampling import Statistic, by_cluster, estimates
from align_bench.stats.paired import Difference
from align_bench.stats.seeds import MIN_SEEDS

RESAMPLES = 2000
# Numbers that one batch of resamples may hold: 100,000 fit in a processor's cache.
_BATCH = 100_000

Matrix = npt.NDArray[np.float64]


def difference(a: Statistic, b: Statistic, prompts: int, n: int) -> Difference:
    """a − b of two statistics of the same prompts, with its BCa interval; it is no test: p and effect stay None.

    Args:
        a, b: each model's own statistic of how often each prompt was drawn, of one value.
        prompts: their number.
        n: observations that the difference counts.
    """
    (found,) = estimates(lambda counts: a(counts) - b(counts), prompts, n)
    return Difference(found.value, found.low, found.high, None, None, n)


def bca_means(columns: Matrix, clusters: Clusters | None = None) -> Matrix:
    """95% BCa bootstrap intervals of the means of many columns over the same rows.

    All columns share the resamples, which are of whole clusters: the rows of one prompt come and go together.

    Args:
        columns: a row a pair, a column for each comparison's differences.
        clusters: the cluster of each row; None when each is its own.

    Returns:
        Shape [columns, 2]; NaN where a column is constant or there are fewer than two clusters.
    """
    codes = cluster_codes(clusters, len(columns))
    if not len(codes):
        return np.full((columns.shape[1], 2), np.nan)
    sums = by_cluster([np.ones(len(codes)), *columns.T], codes)

    def means(counts: Matrix) -> Matrix:
        drawn = counts @ sums
        found: Matrix = drawn[..., 1:] / drawn[..., :1]
        return found

    found = estimates(means, len(sums))
    return np.array([[one.low, one.high] for one in found], dtype=np.float64).reshape(-1, 2)


def resampled_means(tables: Sequence[Matrix], clusters: Clusters | None = None) -> Matrix:
    """Means of methods under the two-level bootstrap: prompts are drawn, shared by all, and each method's own seeds.

    2,000 resamples, generator seeded with 0. A table with fewer than three rows (the base; a method with too few
    seeds) keeps its rows, so that what is drawn from it speaks of these checkpoints only.

    Args:
        tables: for each method a row a seed and a column a unit (pair or prompt), the same units in each.
        clusters: the prompt of each unit; None when each is its own.

    Returns:
        Shape [methods, resamples].

    Raises:
        ValueError: fewer than two prompts.
    """
    codes = cluster_codes(clusters, tables[0].shape[1])
    if not len(codes) or codes.max() < 1:
        raise ValueError("a bootstrap needs at least two prompts")
    sums, sizes = zip(*(_by_cluster(table, codes) for table in tables), strict=True)

    def means(weights: Matrix, seeds: Sequence[Matrix]) -> Matrix:
        each = [((weights @ own.T) * shares).sum(-1) for own, shares in zip(sums, seeds, strict=True)]
        together: Matrix = np.stack(each, axis=-1) / (weights @ sizes[0])[..., None]
        return together

    return _two_level(len(sizes[0]), [len(table) for table in tables], means)


def resampled_win_rates(tables: Sequence[Matrix]) -> Matrix:
    """How often each method scores above each other one, under the two-level bootstrap of `resampled_means`.

    Args:
        tables: each method's scores, shape [seeds, prompts, samples], the same prompts in each; NaN where a prompt has
            fewer samples.

    Returns:
        Shape [pairs, resamples], pairs in the order of `itertools.combinations`: the share of prompts on which an
        answer of the first one scores above an answer of the second one, a tie ½, over all pairs of their seeds and of
        a prompt's samples.

    Raises:
        ValueError: fewer than two prompts.
    """
    prompts = tables[0].shape[1]
    if prompts < 2:
        raise ValueError("a bootstrap needs at least two prompts")
    pairs = list(combinations(range(len(tables)), 2))
    wins = [won(tables[a], tables[b]).reshape(-1, prompts) for a, b in pairs]

    def rates(weights: Matrix, seeds: Sequence[Matrix]) -> Matrix:
        each = []
        for (a, b), own in zip(pairs, wins, strict=True):
            both = seeds[a][..., :, None] * seeds[b][..., None, :]
            each.append(((weights @ own.T) * both.reshape(*both.shape[:-2], -1)).sum(-1))
        together: Matrix = np.stack(each, axis=-1) / prompts
        return together

    return _two_level(prompts, [len(table) for table in tables], rates)


def won(a: Matrix, b: Matrix) -> Matrix:
    """How often an answer of a seed of a scores above one of a seed of b, a tie ½, over pairs of a prompt's samples.

    Args:
        a, b: scores, shape [seeds, prompts, samples]; NaN where a prompt has fewer samples.

    Returns:
        Shape [seeds of a, seeds of b, prompts].
    """
    above = wins_of(a[:, None, :, :, None] - b[None, :, :, None, :])
    share: Matrix = np.nanmean(above, axis=(-2, -1))
    return share


def percentiles(drawn: Matrix) -> tuple[float, float]:
    """The 2.5% and 97.5% quantiles of resampled values."""
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _by_cluster(rows: Matrix, codes: npt.NDArray[np.intp]) -> tuple[Matrix, Matrix]:
    """Sums over the units of each cluster, shape [rows, clusters], and the clusters' sizes."""
    sums = np.array([np.bincount(codes, row) for row in rows])
    return sums, np.bincount(codes).astype(np.float64)


def _two_level(clusters: int, seeds: Sequence[int], statistic: Callable[[Matrix, Sequence[Matrix]], Matrix]) -> Matrix:
    """Draw prompts and, for methods with enough of them, seeds.

    Args:
        clusters: number of prompts.
        seeds: each method's number of seeds.
        statistic: how often each prompt was drawn, shape [..., clusters], and each method's shares of its seeds, shape
            [..., seeds] → values, shape [..., values].

    Returns:
        Shape [values, resamples].
    """
    drawn = [place for place, count in enumerate(seeds) if count >= MIN_SEEDS]

    def of_counts(weights: Matrix, *counts: Matrix) -> Matrix:
        shares = [np.full((1,) * (weights.ndim - 1) + (count,), 1 / count) for count in seeds]
        for place, own in zip(drawn, counts, strict=True):
            shares[place] = own / seeds[place]
        return statistic(weights, shares)

    sizes = (clusters, *(seeds[place] for place in drawn))
    result: Matrix = _resample(sizes, of_counts, "percentile").bootstrap_distribution
    return result


def _resample(sizes: Sequence[int], statistic: Callable[..., Matrix], method: str) -> Any:
    """scipy's `bootstrap` of a statistic that takes how often each row was drawn, in place of the rows.

    scipy draws row numbers; a mean over drawn rows is a product with their counts, which one matrix product makes for
    all columns at once.

    Args:
        sizes: rows of each sample; samples are drawn independently of each other.
        statistic: counts, shape [..., rows], of each sample → values, shape [..., columns].
        method: scipy's.
    """
    from scipy.stats import DegenerateDataWarning, bootstrap

    def of_numbers(*numbers: Any, axis: int = -1) -> Any:
        values = statistic(*(_counts(rows, size) for rows, size in zip(numbers, sizes, strict=True)))
        return np.moveaxis(values, -1, 0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)
        return bootstrap(
            tuple(np.arange(size) for size in sizes),
            of_numbers,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=max(1, _BATCH // max(sizes)),
            method=method,
            rng=np.random.default_rng(0),
        )


def _counts(numbers: Any, size: int) -> Matrix:
    """How often each of `size` rows stands among drawn row numbers, shape [..., size]."""
    rows = np.asarray(numbers).astype(np.intp)
    flat = rows.reshape(-1, rows.shape[-1])
    places = flat + size * np.arange(len(flat))[:, None]
    counts = np.bincount(places.ravel(), minlength=size * len(flat)).astype(np.float64)
    return counts.reshape(*rows.shape[:-1], size)
