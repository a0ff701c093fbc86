"""How far two judges agree."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from align_bench.metrics.mean import mean
from align_bench.records import Estimate

Scores = Mapping[str, Mapping[Hashable, float]]


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's τ-b of two rankings (scipy): 1 the same, −1 reversed. None for fewer than two, or a constant one."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    from scipy.stats import kendalltau

    return float(kendalltau(a, b).statistic)


def preference_agreement(a: Scores, b: Scores) -> Estimate:
    """Share of prompt-wise preferences between two policies on which two judges agree, over all pairs of policies.

    Where either judge scores both answers equally there is no preference, and the prompt does not count for that pair.
    Student's 95% interval, within [0, 1], takes a prompt as a cluster, since all pairs of policies answer the same
    ones; so the value is the mean over prompts of each prompt's own share, and `n` counts prompts.

    Args:
        a, b: each judge's scores: policy → prompt → score.
    """
    agreed: list[float] = []
    prompts: list[Hashable] = []
    for one, other in combinations([policy for policy in a if policy in b], 2):
        by_a, than_a, by_b, than_b = a[one], a[other], b[one], b[other]
        for prompt in by_a:
            if prompt in than_a and prompt in by_b and prompt in than_b:
                gaps = by_a[prompt] - than_a[prompt], by_b[prompt] - than_b[prompt]
                if all(gaps):
                    agreed.append(float((gaps[0] > 0) == (gaps[1] > 0)))
                    prompts.append(prompt)
    found = mean(agreed, prompts)
    if found.low is None or found.high is None:
        return found
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))  # a share is no less and no more
