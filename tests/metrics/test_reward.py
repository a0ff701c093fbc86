from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest

from align_bench.metrics.mean import cluster_means, mean
from align_bench.metrics.reward import margin, reward_mean, reward_std
from align_bench.metrics.win_rate import Samples, win_rate
from align_bench.records import Estimate

CHOSEN, REJECTED = [3.0, 1.0, 4.0, 1.0, 5.0], [-2.0, 0.0, 1.0, 2.0, 3.0]
T_4 = 2.7764451051977987  # 97.5% quantile of Student's t with 4 degrees of freedom


def test_reward_mean_is_over_both_answers_and_clusters_by_pair() -> None:
    found = reward_mean(CHOSEN, REJECTED)
    halves = [(a + b) / 2 for a, b in zip(CHOSEN, REJECTED, strict=True)]
    spread = T_4 * statistics.stdev(halves) / math.sqrt(5)
    assert found.value == pytest.approx(sum(CHOSEN + REJECTED) / 10) == pytest.approx(1.8)
    assert found.low == pytest.approx(1.8 - spread, rel=1e-12)
    assert found.high == pytest.approx(1.8 + spread, rel=1e-12)
    assert found.n == 5


def test_margin_is_chosen_minus_rejected() -> None:
    found = margin(CHOSEN, REJECTED)
    differences = [5.0, 1.0, 3.0, -1.0, 2.0]
    spread = T_4 * statistics.stdev(differences) / math.sqrt(5)
    assert found.value == pytest.approx(2.0)
    assert found.low == pytest.approx(2.0 - spread, rel=1e-12)
    assert found.high == pytest.approx(2.0 + spread, rel=1e-12)


def test_reward_std_is_unbiased_over_the_concatenation() -> None:
    found = reward_std(CHOSEN, REJECTED)
    assert found.value == pytest.approx(statistics.stdev(CHOSEN + REJECTED), rel=1e-12)
    assert found.value != pytest.approx(statistics.pstdev(CHOSEN + REJECTED), rel=1e-3)
    assert found == reward_std(CHOSEN, REJECTED)


def std_and_error(chosen: list[float], rejected: list[float], prompts: list[int]) -> tuple[float, float]:
    """Logarithm of the standard deviation and its clustered error, from the parts of each prompt in the variance."""
    scores, own = [*chosen, *rejected], [*prompts, *prompts]
    mean, variance = statistics.mean(scores), statistics.pvariance(scores)
    parts: dict[int, float] = {}
    for score, prompt in zip(scores, own, strict=True):
        parts[prompt] = parts.get(prompt, 0.0) + (score - mean) ** 2 - variance
    groups = len(set(prompts))
    squares = sum(part**2 for part in parts.values()) * groups / (groups - 1)
    return math.log(statistics.variance(scores)) / 2, math.sqrt(squares) / (2 * len(scores) * variance)


def test_reward_std_interval_is_a_studentised_bootstrap_of_whole_prompts() -> None:
    rng = random.Random(1)
    prompts = [prompt for prompt in range(30) for _ in range(1 + prompt % 4)]
    level = {prompt: rng.gauss(0, 1) for prompt in prompts}
    chosen = [level[prompt] + rng.gauss(1, 2) for prompt in prompts]
    rejected = [c - rng.gauss(1, 0.5) for c in chosen]
    found = reward_std(chosen, rejected, prompts=prompts)
    rows = {prompt: [row for row, own in enumerate(prompts) if own == prompt] for prompt in range(30)}
    log, error = std_and_error(chosen, rejected, prompts)
    ratios = []
    for drawn in np.random.default_rng(0).integers(0, 30, (9_999, 30)):
        kept = [(row, place) for place, prompt in enumerate(drawn.tolist()) for row in rows[prompt]]
        # A prompt that was drawn twice is two prompts that are alike; their parts add up as those of two.
        one, its = std_and_error(
            [chosen[row] for row, _ in kept], [rejected[row] for row, _ in kept], [place for _, place in kept]
        )
        ratios.append((one - log) / its)
        if len(ratios) == 1_500:  # of 9,999: the bounds differ by a few thousandths
            break
    low, high = np.quantile(ratios, [0.025, 0.975])
    assert found.n == len(prompts)
    assert found.value == pytest.approx(math.exp(log))
    assert found.low == pytest.approx(math.exp(log - high * error), rel=0.03)
    assert found.high == pytest.approx(math.exp(log - low * error), rel=0.03)
    alone = reward_std(chosen, rejected)
    assert (alone.high or 0) - (alone.low or 0) < (found.high or 0) - (found.low or 0)


def test_a_spread_says_where_its_interval_covers_too_little() -> None:
    """Of 100 lognormal scores it covers 83%, of 1,000 89%, of normal ones 95%."""
    draw = np.random.default_rng(4)
    marked = {
        (name, n): np.mean([reward_std(one).wanted is not None for one in scores(size=(10, n))])
        for name, scores in (("normal", draw.normal), ("lognormal", draw.lognormal))
        for n in (100, 400)
    }
    assert marked["lognormal", 100] >= 0.8
    assert marked["lognormal", 400] >= 0.7
    assert marked["normal", 100] <= 0.4
    assert marked["normal", 400] == 0


def test_constant_and_short_input_have_no_interval() -> None:
    assert (reward_std([2.0, 2.0], [2.0, 2.0]).value, reward_std([2.0, 2.0], [2.0, 2.0]).low) == (0.0, None)
    assert (mean([0.1, 0.1, 0.1]).low, mean([0.1, 0.1, 0.1]).high) == (None, None)
    assert mean([7.0]).value == 7.0
    assert mean([7.0]).low is None
    assert mean([]).value is None
    assert reward_std([1.0]).value is None
    assert reward_mean([], []).value is None
    assert reward_std([], []).value is None


def test_missing_scores_are_left_out_pair_by_pair() -> None:
    found = reward_mean([1.0, math.nan, 3.0], [1.0, 100.0, None])
    assert (found.value, found.n) == (1.0, 1)


def test_a_mean_says_where_its_interval_covers_too_little() -> None:
    """Cochran's rule wants 25 times the squared skewness in observations."""
    draw = np.random.default_rng(0)
    skewed, normal = draw.lognormal(0, 2, 200), draw.normal(size=200)
    gaps = skewed - skewed.mean()
    skewness = np.mean(gaps**3) / np.mean(gaps**2) ** 1.5
    assert mean(skewed).wanted == math.ceil(25 * skewness**2)
    assert mean(normal).wanted is None
    prompts = (np.arange(200) // 2).tolist()
    assert mean(skewed, prompts).n == 100
    assert (mean(skewed, prompts).wanted or 0) > 100
    assert margin(skewed.tolist(), [0.0] * 200, prompts).wanted == 2 * (mean(skewed, prompts).wanted or 0) - 1
    assert margin(normal.tolist(), [0.0] * 200, prompts).wanted is None


def test_samples_of_one_prompt_are_one_observation() -> None:
    found = mean([1.0, 3.0, 10.0], ["a", "a", "b"])
    assert (found.value, found.n) == (6.0, 2)
    assert cluster_means([1.0, 3.0, None, 10.0, math.nan], [7, 7, 7, 2, 3]) == {7: 2.0, 2: 10.0}
    repeated = mean([1.0, 1.0, 2.0, 2.0, 4.0, 4.0], [0, 0, 1, 1, 2, 2])
    assert repeated == mean([1.0, 2.0, 4.0])


def test_win_rate_is_by_prompt_with_ties_half() -> None:
    found = win_rate(
        {1: [2.0], 2: [0.0], 3: [1.0], 4: [9.0], 5: [9.0]}, {1: [1.0], 2: [3.0], 3: [1.0], 4: [1.0], 6: [0]}
    )
    assert (found.value, found.n) == (0.625, 4)
    assert win_rate({1: [1.0]}, {}).value is None


def test_win_rate_is_between_answers_and_does_not_grow_with_samples() -> None:
    """A policy whose answers are better by 0.2 standard deviations wins 55.6% of the time, however many it writes."""
    draw = random.Random(0)
    found = []
    for samples in (1, 8):
        own: Samples = {prompt: [draw.gauss(0.2, 1) for _ in range(samples)] for prompt in range(2000)}
        base: Samples = {prompt: [draw.gauss(0, 1) for _ in range(samples)] for prompt in range(2000)}
        found.append(win_rate(own, base))
    right = 0.5 * (1 + math.erf(0.2 / 2))
    for one in found:
        assert one.value == pytest.approx(right, abs=0.025)
        assert one.low is not None and one.high is not None  # noqa: PT018
        assert one.low < right < one.high
    assert found[1].n == 2000


def test_win_rate_of_several_samples_by_hand() -> None:
    found = win_rate({"a": [3.0, -1.0], "b": [0.0]}, {"a": [0.0, 0.0], "b": [1.0, 0.0, -1.0, -2.0]})
    assert found.value == pytest.approx((2 / 4 + 2.5 / 4) / 2)
    assert found.n == 2
    assert win_rate({"a": [3.0, -1.0]}, {"a": [0.0]}) == Estimate(0.5, n=1)
