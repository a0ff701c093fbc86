"""Win rates at equal length."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM

from align_bench.records import Estimate
from align_bench.stats import length_control
from align_bench.stats.length_control import RIDGE, _resampled_intercepts, length_controlled_win_rate


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


def test_every_resample_is_fitted_whole() -> None:
    """The fits made at once are those of the resampled rows, their standard deviation included."""
    wins, longer = drawn(80)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 80, (4, 80))
    counts = np.stack([np.bincount(own, minlength=80) for own in rows]).astype(float)
    found = _resampled_intercepts(counts, wins, longer, np.zeros(2))
    for theta, own in zip(found, rows, strict=True):
        assert theta == pytest.approx(minimize(penalised, np.zeros(2), args=(wins[own], longer[own])).x[0], abs=1e-3)
    far = _resampled_intercepts(counts, wins, longer, np.array([8.0, -8.0]))
    assert far == pytest.approx(found, abs=1e-6)  # whatever they start from


def test_the_interval_is_the_bootstraps() -> None:
    wins, longer = drawn(80)
    found = rate_at_equal_length(wins, longer)
    rng = np.random.default_rng(5)
    plain = [
        1 / (1 + math.exp(-minimize(penalised, np.zeros(2), args=(wins[own], longer[own])).x[0]))
        for own in rng.integers(0, 80, (400, 80))
    ]
    assert [found.low, found.high] == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.03)


def test_newtons_method_takes_newtons_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong curvature finds the same optimum, but slowly. Where a policy always wins, the ridge is a part of it."""
    around, above = np.array([-3.0, -2.0, -1.0, 1.0, 2.0, 5.0]), np.array([1.0, 2.0, 3.0, 4.0, 5.0, 9.0])
    mixed = np.array([1.0, 0.0, 1.0, 1.0, 1.0, 0.0])
    for wins, longer, steps in (
        (mixed, around, 5),
        (mixed, above, 6),
        (np.ones(6), around, 9),
        ((around > 0).astype(float), around, 9),
    ):
        fits = {}
        for most in (steps, 100):
            monkeypatch.setattr(length_control, "STEPS", most)
            fits[most] = _resampled_intercepts(np.ones((1, 6)), wins, longer, np.zeros(2))[0]
        assert fits[steps] == pytest.approx(fits[100], abs=1e-9)
        best = minimize(penalised, np.zeros(2), args=(wins, longer), method="Nelder-Mead", options={"xatol": 1e-9}).x
        assert fits[100] == pytest.approx(best[0], abs=1e-5)


def test_a_fit_without_lengths_is_the_share_of_wins() -> None:
    """Only the intercept moves, and from afar a full step would go past it for ever."""
    wins = np.array([1.0, 1.0, 1.0, 0.0] * 10)
    for start in ([0.0, 0.0], [8.0, 0.0]):
        theta = _resampled_intercepts(np.ones((1, 40)), wins, np.zeros(40), np.array(start))[0]
        rate = 1 / (1 + math.exp(-theta))
        assert 40 * (0.75 - rate) == pytest.approx(RIDGE * theta, abs=1e-9)  # the slope of the penalised likelihood


def test_length_has_no_unit() -> None:
    wins, longer = drawn(60)
    found, scaled = (rate_at_equal_length(wins, unit * longer) for unit in (1, 1 / 1024))
    assert (scaled.value, scaled.low, scaled.high) == pytest.approx((found.value, found.low, found.high), abs=1e-9)


def test_statsmodels_fit_is_that_of_newtons_method() -> None:
    wins, longer = (np.arange(60) % 3 > 0).astype(float), np.linspace(-2, 3, 60)
    theta = _resampled_intercepts(np.ones((1, 60)), wins, longer, np.zeros(2))[0]
    found = rate_at_equal_length(wins, longer).value or 0
    assert math.log(found / (1 - found)) == pytest.approx(theta, abs=1e-6)


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
        assert found.low is not None
        assert math.isfinite(found.low)


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
