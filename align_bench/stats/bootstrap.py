"""Bootstrap intervals of differences over prompts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from align_bench.metrics.accuracy import wins_of
from align_bench.metrics.clusters import Clusters, cluster_codes
from align_bench.metrics.resampling import OfSums, Statistic, by_cluster, estimates
from align_bench.stats.paired import Difference

Matrix = npt.NDArray[np.float64]


def difference(a: Statistic, b: Statistic, prompts: int, n: int, level: float = 0.95) -> Difference:
    """a − b of two statistics of the same prompts, with its BCa interval; it is no test: p and effect stay None.

    Args:
        a, b: each model's own statistic of how often each prompt was drawn, of one value.
        prompts: their number.
        n: observations that the difference counts.
        level: confidence of the interval; above 95% where it is adjusted for a family of several.
    """
    (found,) = estimates(lambda counts: a(counts) - b(counts), prompts, n, level)
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
    found = estimates(OfSums(sums, lambda drawn: drawn[..., 1:] / drawn[..., :1]), len(sums))
    return np.array([[one.low, one.high] for one in found], dtype=np.float64).reshape(-1, 2)


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
