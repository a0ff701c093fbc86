"""Two one-sided tests (TOST): whether a difference is smaller than a margin, so that "no difference" can be claimed.

The margin is `equivalence_dz` × the standard deviation of the differences between two checkpoints on one prompt. With
0.1, half of Cohen's small effect, an equivalent method wins at most 54% of prompts where differences are normal, and a
comparison on 1,000 prompts finds a difference of that size in 88% of cases.
"""

from __future__ import annotations

import numpy as np

from align_bench.metrics.clusters import Clusters, are_alike, cluster_codes, clustered_fit, is_clustered
from align_bench.stats.paired import Values, Vector
from align_bench.stats.seeds import MethodDifference


def prompt_spread(a: Vector, b: Vector) -> float | None:
    """Standard deviation over units of the differences between any seed of a and any of b, root mean square.

    Args:
        a, b: a row a seed, a column a unit.
    """
    if a.shape[1] < 2:
        return None
    variances = [np.var(left - right, ddof=1) for left in a for right in b]
    return float(np.sqrt(np.mean(variances)))


def tost_paired(a: Values, b: Values, margin: float, clusters: Clusters | None = None) -> float | None:
    """p-value of |mean of a − b| < margin between two checkpoints.

    Bit for bit statsmodels' `DescrStatsW.ttost_mean`; where several pairs share a prompt, two one-sided tests of the
    clustered mean of `stats.paired.paired_t`. None for fewer than two prompts, and where the mean difference is the
    same on each.

    Args:
        a, b, clusters: as in `paired_t`.
        margin: the largest difference that counts as none, in the unit of a and b; above 0.
    """
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    codes = cluster_codes(clusters, len(differences))
    if not len(differences) or are_alike(differences, codes):
        return None
    if not is_clustered(codes):
        return _within(differences, margin)
    fit = clustered_fit(differences, codes)
    above, below = fit.t_test(([[1.0]], [-margin])), fit.t_test(([[1.0]], [margin]))
    # A two-sided p-value is twice that of the side that the estimate is on.
    one_sided: list[float] = [
        test.pvalue.item() / 2 if side * test.tvalue.item() > 0 else 1 - test.pvalue.item() / 2
        for test, side in ((above, 1), (below, -1))
    ]
    return max(one_sided)


def tost_methods(found: MethodDifference, margin: float) -> float | None:
    """p-value of |difference| < margin between methods, by the standard error that its interval has.

    None where it has none.

    Args:
        found: a difference over seeds and prompts.
        margin: as of `tost_paired`.
    """
    if not found.parts:
        return None
    return found.tail(margin - abs(found.difference))


def _within(differences: Vector, margin: float) -> float:
    from scipy.special import stdtr

    n, ones = len(differences), np.ones(len(differences))
    centre = differences @ ones / n  # as statsmodels sums, which weighs values
    error = np.sqrt((differences - centre) ** 2 @ ones / n) / np.sqrt(n - 1)
    return float(max(stdtr(n - 1, -(centre + margin) / error), stdtr(n - 1, (centre - margin) / error)))
