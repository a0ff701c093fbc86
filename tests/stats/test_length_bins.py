"""Gains split by length."""

from __future__ import annotations

import math

import numpy as np
import pytest

from align_bench.records import Estimate
from align_bench.stats.length_bins import Answers, Gain, binned_gain


def answers(lengths: list[float], rewards: list[float], prompts: list[int] | None = None) -> Answers:
    return Answers(prompts or list(range(len(lengths))), np.array(lengths), np.array(rewards))


def test_a_gain_splits_by_hand() -> None:
    # Short answers are worth 0 (base) and 1 (policy), long ones 4 and 5; the base writes 3 of 4 short, the policy 1.
    base = answers([1, 1, 1, 9], [0, 0, 0, 4])
    policy = answers([1, 9, 9, 9], [1, 5, 5, 5])
    found = binned_gain(policy, base)
    # 4 − 1; within: 1 in each bin; between: (−½)·½ + ½·4½
    assert (found.total.value, found.within.value, found.between.value) == pytest.approx((3.0, 1.0, 2.0))
    assert found.total.n == 4


def test_a_bin_of_the_base_alone_counts_as_between() -> None:
    # The base writes 3 of 4 short ones, worth 2, and a long one, worth 4; the policy long ones alone, worth 5.
    found = binned_gain(answers([9, 9, 9, 9], [5, 5, 5, 5]), answers([1, 1, 1, 9], [2, 2, 2, 4]))
    # within: ½(1 + ¼)·(5 − 4); between: −¾·2 + ¾·4½
    assert (found.total.value, found.within.value, found.between.value) == pytest.approx((2.5, 0.625, 1.875))


def test_parts_add_up_and_follow_the_definition() -> None:
    rng = np.random.default_rng(1)
    own, other = rng.integers(1, 60, 120).astype(float), rng.integers(1, 40, 120).astype(float)
    policy, base = answers(list(own), list(own / 20 + 1)), answers(list(other), list(other / 20))
    found = binned_gain(policy, base)
    edges = np.unique(np.quantile(np.concatenate([own, other]), [k / 10 for k in range(1, 10)]))
    within = between = 0.0
    for low, high in zip([-math.inf, *edges], [*edges, math.inf], strict=True):
        here, there = ((side.lengths > low) & (side.lengths <= high) for side in (policy, base))
        p, q = here.mean(), there.mean()
        a = policy.rewards[here].mean() if p else base.rewards[there].mean()
        b = base.rewards[there].mean() if q else a
        within += (p + q) / 2 * (a - b)
        between += (p - q) * (a + b) / 2
    assert found.within.value == pytest.approx(within)
    assert found.between.value == pytest.approx(between)
    assert found.total.value == pytest.approx(policy.rewards.mean() - base.rewards.mean())
    assert found.total.value == pytest.approx((found.within.value or 0) + (found.between.value or 0))
    # the true gain at equal length is 1
    assert found.within.low is not None
    assert found.within.high is not None
    assert found.within.low < 1.05
    assert found.within.high > 0.8


def test_samples_of_a_prompt_count_once_together() -> None:
    base = answers([1, 1], [0, 0])
    policy = answers([1, 1, 1, 1], [0, 3, 0, 1], prompts=[0, 0, 0, 1])
    found = binned_gain(policy, base)
    assert (found.total.value, found.within.value, found.between.value) == pytest.approx(((1 + 1) / 2, 1.0, 0.0))


def test_prompts_of_one_side_only_are_left_out() -> None:
    found = binned_gain(answers([1, 1, 1], [1, 1, 100]), answers([1, 1], [0, 0]))
    assert (found.total.value, found.total.n) == (1.0, 2)
    nothing = Estimate(None, n=1)
    assert binned_gain(answers([1], [1]), answers([1], [0])) == Gain(nothing, nothing, nothing)
