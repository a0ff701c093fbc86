"""How far a reward model's scores follow the length of answers rather than their worth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from align_bench.metrics.clusters import Clusters, Codes, cluster_codes
from align_bench.metrics.finite import Column, Numbers, finite, is_constant
from align_bench.metrics.resampling import Matrix, OfSums, Statistic, by_cluster, estimates
from align_bench.records import Estimate

CORRELATIONS = ("spearman", "spearman_within", "partial", "partial_within")


def length_correlation(
    better: Numbers,
    worse: Numbers,
    better_words: Numbers,
    worse_words: Numbers,
    prompts: Clusters | None = None,
) -> Estimate:
    """Partial correlation of score with length over both answers of every pair, given which of the two is better.

    Scores and lengths are centred among the better and among the worse answers apart, then correlated (Pearson); so
    lengths that go with being better do not count as bias. 0 is unbiased, 1 is a score that length alone decides.
    The 95% interval is BCa, of resampled prompts.

    Args:
        better, worse: scores of the two answers of a pair, in any unit; better by gold or by the label, as the caller
            chooses.
        better_words, worse_words: their lengths in words.
        prompts: the prompt of each pair; None when each has its own.

    Returns:
        The correlation, `n` pairs; None without two pairs, or where scores or lengths do not vary.
    """
    codes = cluster_codes(prompts, len(better))
    own, other, longer, shorter, kept = finite(better, worse, better_words, worse_words, codes)
    n = len(kept)
    if n < 2:
        return Estimate(None, n=n)
    numbers = cluster_codes(kept.tolist(), n)
    (found,) = estimates(partial_correlation(own, other, longer, shorter, numbers), int(numbers.max()) + 1, n)
    return found


def partial_correlation(
    better: Column, worse: Column, better_words: Column, worse_words: Column, codes: Codes
) -> Statistic:
    """The statistic of `length_correlation`, of how often each prompt was drawn.

    Args:
        better, worse, better_words, worse_words: as there, all finite.
        codes: the number of each pair's prompt.
    """
    return _correlation([(better, better_words), (worse, worse_words)], codes)


def score_by_length(
    chosen: Numbers, rejected: Numbers, chosen_words: Numbers, rejected_words: Numbers, clusters: Clusters
) -> dict[str, Estimate]:
    """Correlations of score with length, over all answers (pooled) and within prompts.

    * `spearman`: rank correlation over both answers of every pair;
    * `spearman_within`: the same once each score and each length is less the mean of its pair;
    * `partial`: Pearson's, given which answer the label prefers, as in `length_correlation`;
    * `partial_within`: Pearson's of the differences chosen − rejected, which is within prompts and given the label.

    The 95% intervals are BCa, of resampled prompts.

    Args:
        chosen, rejected: scores, in any unit.
        chosen_words, rejected_words: lengths in words.
        clusters: the prompt of each pair.

    Returns:
        Name → correlation, `n` pairs; None where scores or lengths do not vary.
    """
    *columns, kept = finite(chosen, rejected, chosen_words, rejected_words, cluster_codes(clusters, len(chosen)))
    n = len(kept)
    if n < 2:
        return {name: Estimate(None, n=n) for name in CORRELATIONS}
    codes = cluster_codes(kept.tolist(), n)
    scores, words = np.concatenate(columns[:2]), np.concatenate(columns[2:])
    margins, lengths = columns[0] - columns[1], columns[2] - columns[3]
    both = np.concatenate([codes, codes])
    each = (
        _rank_correlation(scores, words, both),
        _rank_correlation(np.concatenate([margins, -margins]), np.concatenate([lengths, -lengths]), both),
        partial_correlation(columns[0], columns[1], columns[2], columns[3], codes),
        _correlation([(margins, lengths)], codes),
    )
    found = estimates(lambda counts: np.concatenate([one(counts) for one in each], axis=-1), int(codes.max()) + 1, n)
    return dict(zip(CORRELATIONS, found, strict=True))


def _correlation(groups: list[tuple[Column, Column]], codes: Codes) -> Statistic:
    """Pearson's correlation of two columns once each is less its mean in its group; a row of a group is a pair."""
    centred = [(_centred(x), _centred(y)) for x, y in groups]
    columns = [column for x, y in centred for column in (x, y, x * x, y * y, x * y)]
    sums = by_cluster([np.ones(len(codes)), *columns], codes)
    whole = np.array([sum((column**2).sum() for column in side) for side in zip(*centred, strict=True)])

    def correlation(drawn: Matrix) -> Matrix:
        size, *found = np.moveaxis(drawn, -1, 0)
        moments = np.zeros((3, *size.shape))
        for at in range(0, len(found), 5):
            x, y, xx, yy, xy = found[at : at + 5]
            moments += xx - x * x / size, yy - y * y / size, xy - x * y / size
        return _ratio(moments[0], moments[1], moments[2], whole)[..., None]

    return OfSums(sums, correlation)


def _rank_correlation(x: Column, y: Column, codes: Codes) -> Statistic:
    """Spearman's correlation of two columns, a row an answer of a prompt: Pearson's of the ranks within a resample."""
    of_x, of_y = _ranks(x), _ranks(y)
    # Ranks of n rows without ties have a variance of about n² / 12.
    whole = np.array([float(np.ptp(column) > 0) for column in (x, y)]) * len(x)

    def statistic(counts: Matrix) -> Matrix:
        weights = np.ascontiguousarray(np.moveaxis(counts, -1, 0))[codes]  # rows first: they are picked as a whole
        middle = (weights.sum(0) + 1) / 2
        left, right = of_x(weights) - middle, of_y(weights) - middle
        weighted = weights * left
        xx, xy = (weighted * left).sum(0), (weighted * right).sum(0)
        right *= right
        right *= weights
        return _ratio(xx, right.sum(0), xy, whole)[..., None]

    return statistic


def _ranks(values: Column) -> Callable[[Matrix], Matrix]:
    """Mean ranks of rows that are there so many times; ties share theirs. Sorted once for all resamples.

    Returns:
        Weights, shape [rows, ...] → ranks, of the same shape.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    last = np.append(np.flatnonzero(ordered[1:] > ordered[:-1]), len(values) - 1)
    tie = np.empty(len(values), dtype=np.intp)
    tie[order] = np.searchsorted(last, np.arange(len(values)))

    def ranks(weights: Matrix) -> Matrix:
        upto = np.cumsum(weights[order], axis=0)[last]
        below = np.concatenate([np.zeros_like(upto[:1]), upto[:-1]])
        found: Matrix = ((upto + below + 1) / 2)[tie]
        return found

    return ranks


def _ratio(xx: Matrix, yy: Matrix, xy: Matrix, whole: npt.NDArray[np.float64]) -> Matrix:
    """xy / √(xx · yy); NaN where either is no more than rounding of what it is of all rows."""
    varies = (xx > 1e-12 * whole[0]) & (yy > 1e-12 * whole[1])
    ratio: Matrix = np.where(varies, xy / np.sqrt(xx * yy), np.nan)
    return ratio


def _centred(values: Column) -> Column:
    return np.zeros_like(values) if not len(values) or is_constant(values) else values - values.mean()
