"""Level, spread and margin of scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from align_bench.metrics.bootstrap import percentile_interval
from align_bench.metrics.clusters import Clusters, cluster_codes, clustered_mean, is_clustered
from align_bench.metrics.finite import Column, Numbers, finite
from align_bench.metrics.mean import mean
from align_bench.records import Estimate


def reward_mean(chosen: Numbers, rejected: Numbers, prompts: Clusters | None = None) -> Estimate:
    """Mean over chosen and rejected scores concatenated (the course's definition), in the reward's unit.

    Student's 95% interval takes each pair as a cluster, since its two answers share a prompt, and pairs of one prompt
    together; `n` counts pairs.

    Args:
        chosen, rejected: the two scores of each pair.
        prompts: the prompt of each pair; None when each has its own.
    """
    left, right, codes = finite(chosen, rejected, cluster_codes(prompts, len(chosen)))
    return _mean_over_pairs((left + right) / 2, codes)


def reward_std(*columns: Numbers) -> Estimate:
    """Unbiased standard deviation over all columns concatenated, in the reward's unit.

    The 95% interval is a percentile bootstrap (999 resamples of whole rows, generator seeded with 0): chi-square would
    take scores for normal and the answers to one prompt for independent. Undefined for fewer than two scores; no
    interval for fewer than two rows or equal scores.

    Args:
        columns: chosen and rejected scores, or the samples of each prompt; a row is a pair or a prompt.
    """
    samples = finite(*columns)
    scores = np.concatenate(samples)
    n = len(samples[0])
    if len(scores) < 2:
        return Estimate(None, n=n)
    value = float(np.std(scores, ddof=1))
    if n < 2 or np.ptp(scores) == 0:
        return Estimate(value, n=n)
    return Estimate(value, *percentile_interval(samples, _pooled_std), n)


def margin(chosen: Numbers, rejected: Numbers, prompts: Clusters | None = None) -> Estimate:
    """Mean of chosen − rejected over pairs, in the reward's unit, with Student's 95% interval.

    Args:
        chosen, rejected, prompts: as in `reward_mean`.
    """
    left, right, codes = finite(chosen, rejected, cluster_codes(prompts, len(chosen)))
    return _mean_over_pairs(left - right, codes)


def _mean_over_pairs(values: Column, codes: Column) -> Estimate:
    return clustered_mean(values, codes) if is_clustered(codes) else mean(values)


def _pooled_std(*samples: npt.NDArray[np.float64], axis: int = -1) -> Any:
    return np.std(np.concatenate(samples, axis=axis), axis=axis, ddof=1)
