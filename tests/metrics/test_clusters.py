"""Pairs that share a prompt: values are means over pairs, intervals those of prompts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

from align_bench.metrics.accuracy import accuracy
from align_bench.metrics.clusters import cluster_codes, clustered_mean, is_clustered
from align_bench.metrics.reward import margin, reward_mean

PROMPTS = ["p", "p", "p", "q", "q", "r", "s", "s", "s", "s"]
CHOSEN = [2.0, 3.0, 2.5, 0.0, 1.0, 4.0, 0.0, 0.5, -1.0, 0.2]
REJECTED = [1.0, 1.5, 1.0, 2.0, 1.0, 3.0, 1.0, 1.5, 0.0, 1.0]


def half_width(values: list[float]) -> float:
    """Of a mean over pairs, from the definition of the clustered standard error with 4 prompts."""
    centre = sum(values) / len(values)
    sums: dict[str, float] = {}
    for value, prompt in zip(values, PROMPTS, strict=True):
        sums[prompt] = sums.get(prompt, 0.0) + value - centre
    error = math.sqrt(4 / 3 * sum(own**2 for own in sums.values())) / len(values)
    return float(student.ppf(0.975, 3)) * error


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        (margin, [a - b for a, b in zip(CHOSEN, REJECTED, strict=True)]),
        (reward_mean, [(a + b) / 2 for a, b in zip(CHOSEN, REJECTED, strict=True)]),
    ],
)
def test_means_over_pairs_with_the_error_of_prompts(metric: Any, values: list[float]) -> None:
    found, alone = metric(CHOSEN, REJECTED, PROMPTS), metric(CHOSEN, REJECTED)
    assert found.value == pytest.approx(sum(values) / 10)
    assert found.value == alone.value
    assert found.high - found.value == pytest.approx(half_width(values), rel=1e-9)
    assert found.value - found.low == pytest.approx(half_width(values), rel=1e-9)
    assert found.n == 10
    assert metric(CHOSEN, REJECTED, list(range(10))) == alone


def test_accuracy_is_cut_off_where_a_share_ends() -> None:
    # right, right, right; wrong, tie; right; four wrong: 4½ of 10
    found = accuracy(CHOSEN, REJECTED, PROMPTS)
    assert found.value == 0.45
    assert (found.low, found.high) == (0.0, 1.0)  # four prompts say little
    assert half_width([1, 1, 1, 0, 0.5, 1, 0, 0, 0, 0]) > 0.55
    assert accuracy(CHOSEN, REJECTED, list(range(10))) == accuracy(CHOSEN, REJECTED)


def test_missing_scores_leave_with_their_prompt() -> None:
    chosen = [1.0, None, 1.0, math.nan, 0.0]
    assert accuracy(chosen, [0.0] * 5, ["p", "p", "q", "q", "r"]) == accuracy([1.0, 1.0, 0.0], [0.0] * 3)


def test_undefined_is_none() -> None:
    assert clustered_mean(np.array([]), np.array([])).value is None
    assert clustered_mean(np.array([1.0, 2.0]), np.array([0, 0])).low is None
    assert clustered_mean(np.array([1.0, 1.0, 1.0]), np.array([0, 0, 1])).low is None
    with pytest.raises(ValueError, match="clusters"):
        cluster_codes(["p"], 2)
    assert not is_clustered(cluster_codes(None, 3))
    assert is_clustered(cluster_codes(["p", "q", "p"], 3))
