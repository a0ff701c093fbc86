"""Several models ranked at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from align_bench.metrics.clusters import Clusters, cluster_codes

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rank:
    """A place among several: 1 is the highest mean, equal means share the middle place. Bounds are 95%."""

    rank: float
    low: float
    high: float


def ranks(means: Sequence[float], resampled: Matrix) -> list[Rank]:
    """The rank of each mean, with percentile bounds over resamples.

    Args:
        means: one a model; higher is better.
        resampled: what `stats.bootstrap.resampled_means` drew, shape [models, resamples].
    """
    from scipy.stats import rankdata

    places = rankdata(-np.asarray(means))
    drawn = rankdata(-resampled, axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=1, method="inverted_cdf")  # a rank that was drawn
    return [Rank(*map(float, found)) for found in zip(places, low, high, strict=True)]


def friedman(columns: Sequence[Sequence[float] | Matrix], clusters: Clusters | None = None) -> float | None:
    """p-value of Friedman's test that no model is ranked higher than another over prompts (scipy).

    The claim is about these checkpoints. Values of one prompt are averaged first. None for fewer than three models or
    two prompts, and where no prompt tells the models apart.

    Args:
        columns: a model's values on the same units.
        clusters: the prompt of each unit; None when each is its own.
    """
    if len(columns) < 3:
        return None
    codes = cluster_codes(clusters, len(columns[0]))
    if not len(codes) or codes.max() < 1:
        return None
    # Sums over a prompt's units rank the models as their means do.
    blocks = [np.bincount(codes, np.asarray(column, dtype=np.float64)) for column in columns]
    if not np.ptp(np.stack(blocks), axis=0).any():
        return None
    from scipy.stats import friedmanchisquare

    return float(friedmanchisquare(*blocks).pvalue)
