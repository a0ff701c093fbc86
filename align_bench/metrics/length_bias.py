"""How far a reward model's scores follow the length of answers rather than their worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from align_bench.metrics.bootstrap import percentile_interval
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
