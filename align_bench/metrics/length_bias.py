"""How far a reward model's scores follow the length of answers rather than their worth."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from align_bench.metrics.bootstrap import cluster_interval, percentile_interval
from align_bench.metrics.finite import Column, Numbers, finite
from align_bench.records import Estimate


def length_correlation(better: Numbers, worse: Numbers, better_words: Numbers, worse_words: Numbers) -> Estimate:
    """Partial correlation of score with length over both answers of every pair, given which of the two is better.

    Scores and lengths are centred among the better and among the worse answers apart, then correlated (Pearson); so
    lengths that go with being better do not count as bias. 0 is unbiased, 1 is a score that length alone decides.
    The 95% interval is a percentile bootstrap over pairs (999 resamples, generator seeded with 0).

    Args:
        better, worse: scores of the two answers of a pair, in any unit; better by gold or by the label, as the caller
            chooses.
        better_words, worse_words: their lengths in words.

    Returns:
        The correlation; None without two pairs, or where scores or lengths do not vary.
    """
    samples = finite(better, worse, better_words, worse_words)
    n = len(samples[0])
    value = partial_correlation(samples[0], samples[1], samples[2], samples[3]) if n > 1 else np.nan
    if not np.isfinite(value):
        return Estimate(None, n=n)
    return Estimate(float(value), *percentile_interval(samples, partial_correlation), n)


def partial_correlation(
    better: Column, worse: Column, better_words: Column, worse_words: Column, axis: int = -1
) -> Any:
    """The statistic of `length_correlation` along an axis; NaN where scores or lengths do not vary."""
    scores, words = _centred(better, worse, axis), _centred(better_words, worse_words, axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (scores * words).sum(axis) / np.sqrt((scores**2).sum(axis) * (words**2).sum(axis))


def _centred(better: Column, worse: Column, axis: int) -> npt.NDArray[np.float64]:
    centred = [side - side.mean(axis, keepdims=True) for side in (better, worse)]
    return np.concatenate(centred, axis=axis)


def score_by_length(
    chosen: Numbers, rejected: Numbers, chosen_words: Numbers, rejected_words: Numbers, clusters: Sequence[Hashable]
) -> dict[str, Estimate]:
    """Correlations of score with length, over all answers (pooled) and within prompts.

    * `spearman`: rank correlation over both answers of every pair;
    * `spearman_within`: the same once each score and each length is less the mean of its pair;
    * `partial`: Pearson's, given which answer the label prefers, as in `length_correlation`;
    * `partial_within`: Pearson's of the differences chosen − rejected, which is within prompts and given the label.

    The 95% intervals are percentile bootstraps over prompts.

    Args:
        chosen, rejected: scores, in any unit.
        chosen_words, rejected_words: lengths in words.
        clusters: the prompt of each pair.

    Returns:
        Name → correlation, `n` pairs; None where scores or lengths do not vary.
    """
    columns = [np.asarray(values, dtype=np.float64) for values in (chosen, rejected, chosen_words, rejected_words)]
    kept = np.all(np.isfinite(columns), axis=0)
    known = [column[kept] for column in columns]
    groups = [cluster for cluster, one in zip(clusters, kept.tolist(), strict=True) if one]
    n = len(groups)
    if n < 2:
        return {name: Estimate(None, n=n) for name in _CORRELATIONS}
    values = _correlations(*known)
    low, high = cluster_interval(_correlations, known, groups)
    bounds = zip(low, high, strict=True) if low is not None else [(None, None)] * len(values)
    return {
        name: Estimate(float(value), *interval, n) if np.isfinite(value) else Estimate(None, n=n)
        for name, value, interval in zip(_CORRELATIONS, values, bounds, strict=True)
    }


_CORRELATIONS = ("spearman", "spearman_within", "partial", "partial_within")


def _correlations(chosen: Column, rejected: Column, chosen_words: Column, rejected_words: Column) -> Column:
    from scipy.stats import rankdata

    scores, words = np.concatenate([chosen, rejected]), np.concatenate([chosen_words, rejected_words])
    margins, lengths = chosen - rejected, chosen_words - rejected_words
    within = np.concatenate([margins, -margins]), np.concatenate([lengths, -lengths])
    return np.array(
        [
            _pearson(rankdata(scores), rankdata(words)),
            _pearson(*map(rankdata, within)),
            partial_correlation(chosen, rejected, chosen_words, rejected_words),
            _pearson(margins, lengths),
        ]
    )


def _pearson(a: Column, b: Column) -> float:
    left, right = a - a.mean(), b - b.mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        return float((left * right).sum() / np.sqrt((left**2).sum() * (right**2).sum()))
