"""How often a policy's answer is judged better than the base's."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from align_bench.metrics.accuracy import accuracy
from align_bench.records import Estimate


def win_rate(scores: Mapping[Hashable, float], base: Mapping[Hashable, float]) -> Estimate:
    """Share of prompts on which the policy's score is above the base's; a tie counts ½. Wilson's 95% interval.

    Args:
        scores: prompt → the policy's score, averaged over its samples.
        base: prompt → the base's score; only prompts that both answered count. None without any.
    """
    prompts = [prompt for prompt in scores if prompt in base]
    return accuracy([scores[prompt] for prompt in prompts], [base[prompt] for prompt in prompts])
