"""What a change to the text, and not to the worth of the answer, does to a judge's scores."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from align_bench.metrics.accuracy import clustered_share
from align_bench.metrics.clusters import pair_mean
from align_bench.metrics.finite import Numbers
from align_bench.records import Estimate

PROMPTS = ("shuffled", "empty")
EDITS = ("filler", "doubled", "stripped")
VERSIONS = ("plain", *PROMPTS, *EDITS)


def mean_shift(before: Numbers, after: Numbers, clusters: Sequence[Hashable]) -> Estimate:
    """Mean of after − before, in units of the unbiased standard deviation of all scores before.

    Args:
        before, after: scores of the same answers, in any unit; one without a score after it does not count, but its
            score before belongs to the spread.
        clusters: the prompt of each answer. Answers weigh the same and are counted by `n`; the 95% interval is
            Student's, clustered over prompts.

    Returns:
        The shift; None where scores do not vary.
    """
    old, new = (np.asarray(values, dtype=np.float64) for values in (before, after))
    known = old[np.isfinite(old)]
    spread = float(np.std(known, ddof=1)) if len(known) > 1 else 0.0
    with np.errstate(invalid="ignore"):  # infinity less infinity is no shift
        return pair_mean((new - old) / spread, clusters) if spread > 0 else Estimate(None)


def flip_rate(before: Numbers, after: Numbers, clusters: Sequence[Hashable]) -> Estimate:
    """Share of comparisons in which the judge's preference turns round when one of the two answers is edited.

    A tie before or after is no turn.

    Args:
        before: margin of the answer that is to be edited over the other one.
        after: the same margin once it is edited; None where the edit changes nothing.
        clusters: the prompt of each comparison. Comparisons weigh the same and are counted by `n`; the 95% interval is
            that of `clustered_share`.
    """
    margins = zip(np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64), strict=True)
    turned = [float(old * new < 0) if np.isfinite([old, new]).all() else None for old, new in margins]
    return clustered_share(turned, clusters)
