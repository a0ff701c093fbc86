"""Where a formula turns: smallest samples, unequal clusters, units below 1. Each was a change that no test noticed."""

from __future__ import annotations

import math
import statistics
import warnings

import numpy as np
import pytest

from align_bench.metrics.agreement import kendall_tau, preference_agreement
from align_bench.metrics.bootstrap import cluster_interval
from align_bench.metrics.calibration import calibration_error, log_loss, temperature
from align_bench.metrics.clusters import clustered_mean, is_clustered
from align_bench.metrics.counterfactual import flip_rate, mean_shift
from align_bench.metrics.length_bias import length_correlation, partial_correlation, score_by_length
from align_bench.metrics.mean import cluster_means, mean
from align_bench.metrics.pareto import pareto
from align_bench.metrics.readability import flesch_kincaid, mean_grade, strip_markdown
from align_bench.metrics.reward import reward_std
from align_bench.records import Estimate


def test_grades_of_one_prompt_are_averaged_first() -> None:
    texts = ["It was happy.", "The understanding of everything was necessary.", "He ran."]
    first, second, third = (flesch_kincaid(text) or math.nan for text in texts)
    found = mean_grade(texts, [0, 0, 1])
    assert found.value == pytest.approx(((first + second) / 2 + third) / 2)
    assert found.n == 2


def test_shift_is_defined_from_two_scores_on_and_in_any_unit() -> None:
    # The spread of 0 and 0.5 is 0.5 / √2, below 1.
    found = mean_shift([0.0, 0.5], [0.25, 0.25], [0, 1])
    assert found.value == pytest.approx(0.0)
    assert mean_shift([0.0, 0.5], [0.25, 1.0], [0, 1]).value == pytest.approx(0.375 / statistics.stdev([0.0, 0.5]))
    assert mean_shift([0.5], [0.75], [0]) == Estimate(None)
    assert mean_shift([], [], []) == Estimate(None)


def test_flips_of_one_prompt_are_averaged_first() -> None:
    found = flip_rate([1, 1, 1], [-1, 1, -2], ["a", "a", "b"])
    assert (found.value, found.n) == (0.75, 2)
    assert flip_rate([1.0, 0.0, 2.0], [0.0, -1.0, None], [0, 1, 2]).value == 0.0  # a tie is no turn
    with pytest.raises(ValueError, match="shorter"):
        flip_rate([1, 2], [1], [0, 1])


def test_agreement_counts_prompts_that_both_judges_scored_twice() -> None:
    a = {"dpo": {1: 2.0, 2: 1.0, 3: 4.0, 4: 1.0}, "base": {1: 1.0, 2: 2.0, 4: 0.0}}
    b = {"dpo": {1: 5.0, 2: 9.0, 3: 0.0}, "base": {1: 1.0, 2: 4.0, 3: 1.0, 4: 7.0}}
    # Prompt 1 agrees, 2 does not; 3 lacks a's base, 4 lacks b's dpo.
    found = preference_agreement(a, b)
    assert (found.value, found.n) == (0.5, 2)
    three = {name: {1: score} for name, score in (("x", 1.0), ("y", 2.0), ("z", 3.0))}
    turned = {name: {1: score} for name, score in (("x", 2.0), ("y", 1.0), ("z", 3.0))}
    assert preference_agreement(three, turned).value == pytest.approx(2 / 3)
    assert preference_agreement(three, {"w": {1: 1.0}}).value is None


def test_tau_by_hand_and_where_it_is_undefined() -> None:
    assert kendall_tau([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
    assert kendall_tau([1, 2], [2, 1]) == -1
    assert kendall_tau([1], [1]) is None
    assert kendall_tau([1, 1], [1, 2]) is None
    assert kendall_tau([1, 2], [1, 1]) is None


def test_columns_of_different_lengths_have_no_pareto_set() -> None:
    with pytest.raises(ValueError, match="shorter"):
        pareto([1.0, 2.0], [1.0])


def test_two_values_have_an_interval() -> None:
    # Student's 97.5% quantile with one degree of freedom is 12.706.
    found = mean([1.0, 3.0])
    assert (found.low, found.high) == pytest.approx((2 - 12.7062047364, 2 + 12.7062047364))
    with pytest.raises(ValueError, match="3 values, but 2 clusters"):
        cluster_means([1.0, 2.0, 3.0], [0, 1])


def test_two_clusters_have_an_interval_and_one_has_none() -> None:
    values, codes = np.array([1.0, 2.0, 6.0]), np.array([0, 0, 1])
    found = clustered_mean(values, codes)
    # Residuals −2 −1 3 sum to −3 and 3 by cluster; with the correction 2/1 · 2/2 the variance is 2 · 18 / 9.
    assert (found.value, found.n) == (3.0, 3)
    assert (found.low, found.high) == pytest.approx((3 - 2 * 12.7062047364, 3 + 2 * 12.7062047364))
    one = clustered_mean(values, np.zeros(3))
    assert (one.value, one.low, one.n) == (3.0, None, 3)
    constant = clustered_mean(np.full(3, 0.1), codes)
    assert (constant.value, constant.low, constant.n) == (pytest.approx(0.1), None, 3)
    assert clustered_mean(np.array([]), np.array([])) == Estimate(None)


def test_pairs_of_one_prompt_are_a_cluster_only_where_there_are_some() -> None:
    assert not is_clustered(np.array([]))
    assert not is_clustered(np.array([3]))
    assert not is_clustered(np.array([0, 1]))
    assert is_clustered(np.array([0, 0]))


def test_what_a_reader_sees_of_markdown() -> None:
    assert strip_markdown("a **b** <i>c</i> [d](e.html)") == "a b  c  d"
    assert strip_markdown("see https://a.example/x now") == "see   now"
    assert strip_markdown("> quoted\n> again  ") == "quoted\nagain  "
    assert strip_markdown("`x` ~y~ snake_case _z_") == "x y snake_case z"
    assert flesch_kincaid("Éé èê àâ. Ôô îï!") is not None  # Latin, though no letter of it is ASCII


MARGINS = [2.0, -1.0, 0.5, 1.5, -2.5, 3.0, -0.5, 1.0]
LABELS = [1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0]


def test_temperature_and_its_interval_by_hand() -> None:
    """Newton's method on the log-loss, and the sandwich of its slope's variance over clusters."""
    clusters = [0, 0, 1, 1, 2, 3, 4, 5]
    margins, labels = np.array(MARGINS), np.array(LABELS)
    slope = 0.0
    for _ in range(50):
        rate = 1 / (1 + np.exp(-slope * margins))
        information = float(np.sum(margins**2 * rate * (1 - rate)))
        slope += float(np.sum(margins * (labels - rate))) / information
    scores = margins * (labels - rate)
    by_cluster = [sum(scores[place] for place in range(8) if clusters[place] == own) for own in range(6)]
    correction = 6 / 5 * 7 / 7  # G / (G − 1) · (n − 1) / (n − 1 parameter)
    error = math.sqrt(correction * sum(one**2 for one in by_cluster)) / information
    found = temperature(MARGINS, LABELS, clusters)
    assert found.value == pytest.approx(1 / slope, rel=1e-6)
    low, high = slope - 1.959963985 * error, slope + 1.959963985 * error
    assert low > 0
    assert (found.low, found.high) == pytest.approx((1 / high, 1 / low), rel=1e-6)
    assert found.n == 8


def test_temperature_is_undefined_without_a_finite_slope() -> None:
    unsure = temperature([1.0, 1.0, -1.0], [1.0, 0.0, 0.0], [0, 1, 2])
    assert unsure.value == pytest.approx(1 / math.log(2))  # two of three labels agree, so that σ(1 / T) is 2/3
    assert (unsure.low, unsure.high, unsure.n) == (None, None, 3)
    for margins, labels in (
        ([2.0, -0.5], [1.0, 0.0]),  # never wrong
        ([-2.0, 0.5], [1.0, 0.0]),  # never right
        ([2.0, 0.0], [1.0, 0.0]),
        ([0.0, 0.0], [1.0, 0.0]),
        ([2.0, -0.3, 0.2], [0.0, 0.0, 1.0]),  # more wrong than right
    ):
        found = temperature(margins, labels, range(len(margins)))
        assert (found.value, found.n) == (None, len(margins))


def test_losses_average_a_prompts_pairs_first() -> None:
    losses = [math.log1p(math.exp(-margin)) for margin in (1.0, 2.0, -1.0)]
    found = log_loss([1.0, 2.0, 0.0], [0.0, 0.0, 1.0], ["a", "a", "b"])
    assert found.value == pytest.approx(((losses[0] + losses[1]) / 2 + losses[2]) / 2)
    assert found.n == 2
    assert calibration_error(MARGINS, LABELS, range(8)).n == 8


def test_spread_of_few_scores_and_its_interval() -> None:
    assert reward_std([1.0], [3.0]) == Estimate(pytest.approx(math.sqrt(2)), None, None, 1)
    assert reward_std([1.0]) == Estimate(None, None, None, 1)
    assert (reward_std([2.0, 2.0], [2.0, 2.0]).value, reward_std([2.0, 2.0], [2.0, 2.0]).n) == (0.0, 2)
    # Two rows: a resample holds the first twice, the second twice, or both.
    found = reward_std([0.0, 4.0], [1.0, 2.0])
    possible = [statistics.stdev(scores) for scores in ([0, 1, 0, 1], [4, 2, 4, 2], [0, 1, 4, 2])]
    assert (found.low, found.high, found.n) == (pytest.approx(min(possible)), pytest.approx(max(possible)), 2)


def test_bias_by_length_counts_pairs_even_where_it_is_undefined() -> None:
    words, same = [[3.0, 9.0, 4.0], [5.0, 2.0, 8.0]], [[1.0] * 3, [1.0] * 3]
    scores = [[1.0, 2.0, 0.5], [0.0, 1.5, 2.5]]
    assert {one.n for one in score_by_length(*scores, *words, range(3)).values()} == {3}
    flat = score_by_length(*same, *words, range(3))
    assert {(one.value, one.n) for one in flat.values()} == {(None, 3)}
    assert {one.n for one in score_by_length([1.0], [2.0], [3.0], [4.0], [0]).values()} == {1}
    assert length_correlation([1.0], [0.0], [2.0], [3.0]) == Estimate(None, n=1)
    assert length_correlation([1.0, 2.0], [0.0, 0.5], [2.0, 4.0], [3.0, 9.0]).value is not None


def test_bounds_over_clusters_are_the_percentiles_of_the_draws() -> None:
    values, clusters = np.arange(30.0) ** 2, [place // 2 for place in range(30)]
    rng, drawn = np.random.default_rng(0), []
    for _ in range(399):
        chosen = rng.integers(0, 15, 15)
        drawn.append(np.mean([values[2 * place + side] for place in chosen for side in (0, 1)]))
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert cluster_interval(np.mean, [values], clusters) == pytest.approx((low, high), rel=1e-12)
    both = cluster_interval(lambda column: np.array([column.mean(), np.nan]), [values], clusters)
    assert both == ([pytest.approx(low), None], [pytest.approx(high), None])
    assert cluster_interval(np.mean, [np.array([0.0, 1.0])], [0, 1]) == (0.0, 1.0)
    assert cluster_interval(np.mean, [np.array([0.0, 1.0])], [0, 0]) == (None, None)


def test_bounds_need_nineteen_resamples_in_twenty() -> None:
    # One of three prompts has no value, so that one resample in 27 has none; of two prompts, one in four.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert cluster_interval(np.nanmean, [np.array([1.0, 1.0, np.nan])], [0, 1, 2]) == (1.0, 1.0)
        assert cluster_interval(np.nanmean, [np.array([1.0, np.nan])], [0, 1]) == (None, None)


def test_a_correlation_of_many_resamples_is_that_of_each() -> None:
    draw = np.random.default_rng(4)
    columns = [draw.normal(place, 1, size=(5, 12)) for place in range(4)]
    alone = [float(partial_correlation(*(column[row] for column in columns))) for row in range(5)]
    assert partial_correlation(*columns, axis=-1).tolist() == pytest.approx(alone, rel=1e-12)
