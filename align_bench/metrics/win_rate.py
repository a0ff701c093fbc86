"""How often a policy's answer is judged better than the base's."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from align_bench.metrics.accuracy import accuracy, wins_of
from align_bench.metrics.resampling import OfSums, estimates
from align_bench.records import Estimate

Samples = Mapping[Hashable, Sequence[float]]


def win_rate(scores: Samples, base: Samples) -> Estimate:
    """Share of prompts on which an answer of the policy scores above one of the base; a tie counts as ½.

    Of a prompt with several samples it is the share of the pairs of an answer of each, so that the rate does not grow
    with the number of samples, as one of their means would. Prompts weigh the same. The 95% interval is Wilson's where
    every prompt has one answer of each, else BCa, of resampled prompts.

    Args:
        scores: prompt → the scores of the policy's samples.
        base: prompt → those of the base's; only prompts that both answered count. None without any.
    """
    prompts = [prompt for prompt in scores if prompt in base]
    if all(len(scores[prompt]) == len(base[prompt]) == 1 for prompt in prompts):
        return accuracy([scores[prompt][0] for prompt in prompts], [base[prompt][0] for prompt in prompts])
    shares = np.array([wins_of(np.subtract.outer(scores[prompt], base[prompt])).mean() for prompt in prompts])
    table = np.stack([shares, np.ones(len(shares))], axis=1)
    (found,) = estimates(OfSums(table, lambda sums: sums[..., :1] / sums[..., 1:]), len(shares))
    return found
