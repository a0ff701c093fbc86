"""Several models ranked at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from align_bench.metrics.clusters import Clusters, cluster_codes
from align_bench.metrics.finite import tied

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rank:
    """A place among several: 1 is the highest mean, equal means share the middle place. Bounds None: none is known."""

    rank: float
    low: float | None
    high: float | None


def ranks(means: Sequence[float], higher: npt.NDArray[np.bool_] | None) -> list[Rank]:
    """The rank of each mean, bounded by what was shown: as many stand above it as were shown higher, at the least.

    Args:
        means: one a model; higher is better.
        higher: whether model i was shown to be higher than model j, shape [models, models]; None without tests.
    """
    from scipy.stats import rankdata

    places = rankdata(-tied(np.asarray(means, dtype=np.float64)))
    if higher is None:
        return [Rank(float(place), None, None) for place in places]
    low, high = 1 + higher.sum(axis=0), len(means) - higher.sum(axis=1)
    # Tests of two models may rest on more pairs than the means of all do.
    low, high = np.minimum(low, places), np.maximum(high, places)
    return [Rank(*map(float, found)) for found in zip(places, low, high, strict=True)]


def friedman(columns: Sequence[Sequence[float] | Matrix], clusters: Clusters | None = None) -> float | None:
    """p-value of Friedman's test that no model is ranked higher than another over prompts (scipy).

    The claim is about these checkpoints. Values of one prompt are averaged first; those that differ by rounding at most
    are tied. None for fewer than three models or two prompts, and where no prompt tells the models apart.

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
    blocks = tied(np.stack([np.bincount(codes, np.asarray(column, dtype=np.float64)) for column in columns]))
    if not np.ptp(blocks, axis=0).any():
        return None
    from scipy.stats import friedmanchisquare

    return float(friedmanchisquare(*blocks).pvalue)
