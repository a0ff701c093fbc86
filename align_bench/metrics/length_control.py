"""How good a judge is where length gives nothing away."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from align_bench.metrics.accuracy import accuracy, share, wins_of
from align_bench.metrics.bootstrap import cluster_interval
from align_bench.metrics.finite import Column, Numbers, finite
from align_bench.records import Estimate

TOLERANCE = 0.1
BINS = 10


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """Accuracy where the chosen answer is the longer one as often as the shorter one.

    Attributes:
        accuracy: mean over bins of |Δlength|, weighted by pairs; one-sided bins are left out. `n` pairs.
        one_sided: share of pairs in bins where the chosen answer is always the longer one, or always the shorter one.
    """

    accuracy: Estimate
    one_sided: Estimate


def length_matched(chosen: Numbers, rejected: Numbers, chosen_words: Numbers, rejected_words: Numbers) -> Estimate:
    """Accuracy on pairs whose lengths differ by less than 10% of the longer one; Wilson's 95% interval, ties ½."""
    left, right, longer, shorter = finite(chosen, rejected, chosen_words, rejected_words)
    alike = np.abs(longer - shorter) < TOLERANCE * np.maximum(longer, shorter)
    return accuracy(left[alike], right[alike])


def length_controlled(
    chosen: Numbers, rejected: Numbers, chosen_words: Numbers, rejected_words: Numbers, clusters: Sequence[Hashable]
) -> LengthControlled:
    """Accuracy in which a preference for length cancels out: a judge that only counts words gets ½.

    Pairs are put into ten bins of equal size by |Δlength|, those of equal length into one of their own. In each bin it
    is ½ (accuracy where the chosen answer is the longer one + accuracy where it is the shorter one), so that whatever
    is monotone in length is right in one half and wrong in the other; the mean over bins is weighted by pairs. Nothing
    is assumed of the form in which length matters, unlike in a regression, which gave the word count itself 0.73 on
    the embedded pairs. The 95% interval is a percentile bootstrap over prompts, with the bins held fixed.

    Args:
        chosen, rejected: scores, in any unit; a tie counts ½.
        chosen_words, rejected_words: lengths in words.
        clusters: the prompt of each pair.

    Returns:
        Estimates; the accuracy is None where every bin is one-sided.
    """
    columns = [np.asarray(values, dtype=np.float64) for values in (chosen, rejected, chosen_words, rejected_words)]
    kept = np.all(np.isfinite(columns), axis=0)
    margins, lengths = columns[0][kept] - columns[1][kept], columns[2][kept] - columns[3][kept]
    groups = [cluster for cluster, known in zip(clusters, kept.tolist(), strict=True) if known]
    right, bins = wins_of(margins), _bins(np.abs(lengths))
    value, used = _in_bins(right, np.sign(lengths), bins)
    pairs = len(margins)
    one_sided = share(float(pairs - used), pairs)
    if not used:
        return LengthControlled(Estimate(None, n=0), one_sided)
    low, high = cluster_interval(lambda *drawn: _in_bins(*drawn)[0], (right, np.sign(lengths), bins), groups)
    return LengthControlled(Estimate(value, low, high, used), one_sided)


def _bins(differences: Column) -> Column:
    """The number of each pair's bin: 0 for equal lengths, then 1 and up by the deciles of the others."""
    unequal = differences[differences > 0]
    if not len(unequal):
        return np.zeros(len(differences))
    edges = np.unique(np.quantile(unequal, np.linspace(0, 1, BINS + 1)[1:-1]))
    numbers: Column = np.where(differences > 0, 1 + np.searchsorted(edges, differences), 0).astype(np.float64)
    return numbers


def _in_bins(right: Column, longer: Column, bins: Column) -> tuple[float, int]:
    """The mean over bins with both sides, NaN without any, and the number of pairs in them.

    Args:
        right: 1, ½ or 0 for each pair.
        longer: 1 where the chosen answer is the longer one, −1 where it is the shorter one, 0 for equal lengths.
        bins: the bin of each pair; a whole number.
    """
    numbers = bins.astype(np.intp)
    count = {side: np.bincount(numbers[longer == side], minlength=BINS + 1) for side in (-1, 0, 1)}
    total = {side: np.bincount(numbers[longer == side], right[longer == side], BINS + 1) for side in (-1, 0, 1)}
    both = (count[-1] > 0) & (count[1] > 0)
    halves = sum(total[side][both] / count[side][both] for side in (-1, 1)) / 2
    pairs = (count[-1] + count[1])[both]
    used = int(pairs.sum() + count[0].sum())
    if not used:
        return float("nan"), 0
    return float((np.sum(halves * pairs) + total[0].sum()) / used), used
