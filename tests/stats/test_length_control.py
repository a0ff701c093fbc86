"""Win rates at equal length."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import t as student
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM

from align_bench.records import Estimate
from align_bench.stats.length_control import RIDGE, length_controlled_win_rate


def drawn(count: int = 150, theta: float = 0.4, phi: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    longer = rng.normal(6, 10, count).round()
    rate = 1 / (1 + np.exp(-(theta + phi * np.tanh(longer / longer.std()))))
    wins = (rng.random(count) < rate).astype(float)
    wins[:5] = 0.5
    return wins, longer


def rate_at_equal_length(wins: np.ndarray, longer: np.ndarray) -> Estimate:
    """Of one answer of each model to every prompt."""
    return length_controlled_win_rate(wins, longer, range(len(wins)))


def penalised(theta_phi: np.ndarray, wins: np.ndarray, longer: np.ndarray) -> float:
    """The negative log-likelihood with its ridge, written out."""
    logits = theta_phi[0] + theta_phi[1] * np.tanh(longer / longer.std())
    losses = wins * np.log1p(np.exp(-logits)) + (1 - wins) * np.log1p(np.exp(logits))
    return float(losses.sum() + RIDGE / 2 * (theta_phi**2).sum())


def test_the_fit_is_the_minimum_of_its_written_out_loss() -> None:
    wins, longer = drawn()
    best = minimize(penalised, np.zeros(2), args=(wins, longer), tol=1e-12).x
    found = rate_at_equal_length(wins, longer)
    assert found.value == pytest.approx(1 / (1 + math.exp(-best[0])), abs=1e-5)
    # the plain win rate is higher: the policy is longer, and length wins
    assert found.value < wins.mean() - 0.03
    assert found.n == 150


def test_the_ridge_hardly_moves_a_plain_logistic_fit() -> None:
    wins, longer = drawn()
    design = np.stack([np.ones(150), np.tanh(longer / longer.std())], axis=1)
    plain = GLM(wins, design, family=Binomial()).fit().params[0]
    assert rate_at_equal_length(wins, longer).value == pytest.approx(1 / (1 + math.exp(-plain)), abs=1e-3)


def test_the_error_is_the_clustered_one_of_statsmodels() -> None:
    wins, longer = drawn(120)
    prompts = [row // 3 for row in range(120)]
    found = length_controlled_win_rate(wins, longer, prompts)
    design = np.stack([np.ones(120), np.tanh(longer / longer.std())], axis=1)
    groups = {"groups": np.array(prompts)}
    fit = GLM(wins, design, family=Binomial()).fit(cov_type="cluster", cov_kwds=groups)
    correction = np.sqrt(119 / 118)  # statsmodels' (N − 1) / (N − K), whose share of the error is small
    half = student.ppf(0.975, 39) * fit.bse[0] / correction
    expected = [1 / (1 + math.exp(-(fit.params[0] + side * half))) for side in (-1, 1)]
    assert [found.low, found.high] == pytest.approx(expected, abs=2e-3)  # the ridge
    assert found.n == 40


def test_the_interval_is_about_the_bootstraps() -> None:
    wins, longer = drawn(80)
    found = rate_at_equal_length(wins, longer)
    rng = np.random.default_rng(5)
    plain = [
        1 / (1 + math.exp(-minimize(penalised, np.zeros(2), args=(wins[own], longer[own])).x[0]))
        for own in rng.integers(0, 80, (400, 80))
    ]
    assert [found.low, found.high] == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.03)


def test_the_interval_covers() -> None:
    """Of 60 prompts with a true rate of σ(0.4) at equal length."""
    rng, hits = np.random.default_rng(1), 0
    for _ in range(200):
        longer = rng.normal(6, 10, 60).round()
        rate = 1 / (1 + np.exp(-(0.4 + 1.5 * np.tanh(longer / 10))))
        found = rate_at_equal_length((rng.random(60) < rate).astype(float), longer)
        assert found.low is not None and found.high is not None  # noqa: PT018
        hits += found.low <= 1 / (1 + math.exp(-0.4)) <= found.high
    assert 0.91 <= hits / 200 <= 0.99


def test_length_has_no_unit() -> None:
    wins, longer = drawn(60)
    found, scaled = (rate_at_equal_length(wins, unit * longer) for unit in (1, 1 / 1024))
    assert (scaled.value, scaled.low, scaled.high) == pytest.approx((found.value, found.low, found.high), abs=1e-9)


def test_separated_wins_have_a_finite_fit() -> None:
    longer = np.array([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0] * 10)
    for wins, low, high in (
        (np.ones(60), 0.98, 1.0),
        (np.zeros(60), 0.0, 0.02),
        ((longer > 0).astype(float), 0.45, 0.55),
    ):
        found = rate_at_equal_length(wins, longer)
        assert found.value is not None
        assert low <= found.value <= high
        assert (found.low is None) == (len(set(wins)) == 1)  # who always wins leaves no error to estimate


def test_equal_length_that_was_never_seen_is_undefined() -> None:
    wins = np.array([1.0, 0.0, 1.0, 1.0])
    assert rate_at_equal_length(wins, np.array([1.0, 2.0, 3.0, 9.0])).value is None
    assert rate_at_equal_length(wins, np.array([-1.0, -2.0, -3.0, -9.0])).value is None
    assert rate_at_equal_length(wins, np.array([1.0, 2.0, 3.0, 9.0])).n == 4
    assert rate_at_equal_length(wins[:1], np.array([0.0])) == Estimate(None, n=1)
    # Two prompts that mirror each other: neither intercept nor its sign is favoured.
    assert rate_at_equal_length(wins[:2], np.array([-1.0, 1.0])).value == pytest.approx(0.5)
    # without any difference in length it is the plain rate, but for the ridge
    assert rate_at_equal_length(wins, np.zeros(4)).value == pytest.approx(0.75, abs=0.005)


def test_a_prompt_weighs_the_same_whatever_its_samples() -> None:
    wins, longer = drawn(60)
    plain = length_controlled_win_rate(wins, longer, range(60))
    # every pair of answers twice is no news
    twice = length_controlled_win_rate(np.repeat(wins, 2), np.repeat(longer, 2), np.repeat(range(60), 2).tolist())
    assert (twice.value, twice.low, twice.high, twice.n) == pytest.approx(
        (plain.value, plain.low, plain.high, 60), abs=1e-6
    )
    # and a prompt with many answers does not outvote the others
    many = length_controlled_win_rate(
        np.concatenate([wins, np.ones(300)]),
        np.concatenate([longer, np.full(300, longer[0])]),
        [*range(60), *[0] * 300],
    )
    assert many.value == pytest.approx(plain.value, abs=0.03)


def test_resamples_draw_prompts_and_not_pairs_of_answers() -> None:
    wins, longer = drawn(60)
    one = length_controlled_win_rate(wins, longer, range(60))
    nine = length_controlled_win_rate(np.repeat(wins, 9), np.repeat(longer, 9), np.repeat(range(60), 9).tolist())
    assert one.high is not None and one.low is not None  # noqa: PT018
    assert nine.high is not None and nine.low is not None  # noqa: PT018
    assert nine.high - nine.low == pytest.approx(one.high - one.low, rel=1e-4)
