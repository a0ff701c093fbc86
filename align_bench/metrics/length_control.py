"""How good a judge is where length gives nothing away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from align_bench.metrics.accuracy import accuracy, clustered_share, wins_of
from align_bench.metrics.clusters import Clusters, Codes, cluster_codes
from align_bench.metrics.finite import Column, Numbers, finite
from align_bench.metrics.resampling import Matrix, OfSums, Statistic, by_cluster, estimates
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


def length_matched(
    chosen: Numbers,
    rejected: Numbers,
    chosen_words: Numbers,
    rejected_words: Numbers,
    prompts: Clusters | None = None,
) -> Estimate:
    """Accuracy, as `accuracy` has it, on pairs whose lengths differ by less than 10% of the longer one.

    Args:
        chosen, rejected: scores, in any unit.
        chosen_words, rejected_words: lengths in words.
        prompts: the prompt of each pair; None when each has its own.
    """
    columns = finite(chosen, rejected, chosen_words, rejected_words, cluster_codes(prompts, len(chosen)))
    left, right, longer, shorter, codes = columns
    alike = np.abs(longer - shorter) < TOLERANCE * np.maximum(longer, shorter)
    return accuracy(left[alike], right[alike], codes[alike].tolist())


def length_controlled(
    chosen: Numbers, rejected: Numbers, chosen_words: Numbers, rejected_words: Numbers, clusters: Clusters
) -> LengthControlled:
    """Accuracy in which a preference for length cancels out: a judge that only counts words gets ½.

    Pairs are put into ten bins of equal size by |Δlength|, those of equal length into one of their own. In each bin it
    is ½ (accuracy where the chosen answer is the longer one + accuracy where it is the shorter one), so that whatever
    is monotone in length is right in one half and wrong in the other; the mean over bins is weighted by pairs. Nothing
    is assumed of the form in which length matters, unlike in a regression, which gave the word count itself 0.73 on
    the embedded pairs. The 95% interval is BCa, of resampled prompts, with the bins held fixed.

    Args:
        chosen, rejected: scores, in any unit; a tie counts as ½.
        chosen_words, rejected_words: lengths in words.
        clusters: the prompt of each pair.

    Returns:
        Estimates; the accuracy is None where every bin is one-sided.
    """
    columns = finite(chosen, rejected, chosen_words, rejected_words, cluster_codes(clusters, len(chosen)))
    codes = cluster_codes(columns[4].tolist(), len(columns[4]))
    margins, lengths = columns[0] - columns[1], columns[2] - columns[3]
    longer, bins = np.sign(lengths), _bins(np.abs(lengths))
    used = _two_sided(longer, bins)
    one_sided = clustered_share(1.0 - used, codes.tolist())
    if not used.any():
        return LengthControlled(Estimate(None, n=0), one_sided)
    statistic = _in_bins(wins_of(margins), longer, bins, codes)
    (found,) = estimates(statistic, int(codes.max()) + 1, int(used.sum()))
    return LengthControlled(found, one_sided)


def _bins(differences: Column) -> Column:
    """The number of each pair's bin: 0 for equal lengths, then 1 and up by the deciles of the others."""
    unequal = differences[differences > 0]
    if not len(unequal):
        return np.zeros(len(differences))
    edges = np.unique(np.quantile(unequal, np.linspace(0, 1, BINS + 1)[1:-1]))
    numbers: Column = np.where(differences > 0, 1 + np.searchsorted(edges, differences), 0).astype(np.float64)
    return numbers


def _two_sided(longer: Column, bins: Column) -> Column:
    """1 for pairs of equal length and those in bins with both sides, else 0; arguments as in `_in_bins`."""
    both = np.intersect1d(bins[longer > 0], bins[longer < 0])
    used: Column = ((longer == 0) | np.isin(bins, both)).astype(np.float64)
    return used


def _in_bins(right: Column, longer: Column, bins: Column, codes: Codes) -> Statistic:
    """The mean over bins that have both sides in a resample of prompts; NaN without any.

    Args:
        right: 1, ½ or 0 for each pair.
        longer: 1 where the chosen answer is the longer one, −1 where it is the shorter one, 0 for equal lengths.
        bins: the bin of each pair; a whole number.
        codes: the number of each pair's prompt.
    """
    cells = [(longer == side) & (bins == number) for side in (-1, 1) for number in range(1, BINS + 1)]
    members = [cell.astype(np.float64) for cell in (*cells, longer == 0)]
    table = by_cluster([*members, *(cell * right for cell in members)], codes)

    def mean_of_bins(drawn: Matrix) -> Matrix:
        sizes, sums = np.split(drawn, 2, axis=-1)
        shorter, longest, equal = sizes[..., :BINS], sizes[..., BINS:-1], sizes[..., -1]
        both = (shorter > 0) & (longest > 0)
        pairs = np.where(both, shorter + longest, 0)
        halves = (sums[..., :BINS] / shorter + sums[..., BINS:-1] / longest) / 2
        total = np.where(both, halves * pairs, 0).sum(-1) + sums[..., -1]
        accuracies: Matrix = (total / (pairs.sum(-1) + equal))[..., None]
        return accuracies

    return OfSums(table, mean_of_bins)
