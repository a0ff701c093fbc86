"""Win rates at equal length, gains split by length, and win rates over seeds and prompts."""

from __future__ import annotations

import math
import random
from itertools import product

import numpy as np
import pytest
from scipy.optimize import minimize
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM

from align_bench.records import Estimate
from align_bench.stats import length_control
from align_bench.stats.bootstrap import resampled_win_rates, won
from align_bench.stats.length_bins import Answers, Gain, binned_gain
from align_bench.stats.length_control import RIDGE, _resampled_intercepts, length_controlled_win_rate


def drawn(count: int = 150, theta: float = 0.4, phi: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    longer = rng.normal(6, 10, count).round()
    rate = 1 / (1 + np.exp(-(theta + phi * np.tanh(longer / longer.std()))))
    wins = (rng.random(count) < rate) * 1.0
    wins[:5] = 0.5
    return wins, longer


def penalised(theta_phi: np.ndarray, wins: np.ndarray, longer: np.ndarray) -> float:
    """The negative log-likelihood with its ridge, written out."""
    logits = theta_phi[0] + theta_phi[1] * np.tanh(longer / longer.std())
    losses = wins * np.log1p(np.exp(-logits)) + (1 - wins) * np.log1p(np.exp(logits))
    return float(losses.sum() + RIDGE / 2 * (theta_phi**2).sum())


def test_the_fit_is_the_minimum_of_its_written_out_loss() -> None:
    wins, longer = drawn()
    best = minimize(penalised, np.zeros(2), args=(wins, longer), tol=1e-12).x
    found = length_controlled_win_rate(wins, longer)
    assert found.value == pytest.approx(1 / (1 + math.exp(-best[0])), abs=1e-5)
    # the plain win rate is higher: the policy is longer, and length wins
    assert found.value < wins.mean() - 0.03
    assert found.n == 150


def test_the_ridge_hardly_moves_a_plain_logistic_fit() -> None:
    wins, longer = drawn()
    design = np.stack([np.ones(150), np.tanh(longer / longer.std())], axis=1)
    plain = GLM(wins, design, family=Binomial()).fit().params[0]
    assert length_controlled_win_rate(wins, longer).value == pytest.approx(1 / (1 + math.exp(-plain)), abs=1e-3)


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
    found = length_controlled_win_rate(wins, longer)
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
        ((around > 0) * 1.0, around, 9),
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
    found, scaled = (length_controlled_win_rate(wins, unit * longer) for unit in (1, 1 / 1024))
    assert (scaled.value, scaled.low, scaled.high) == pytest.approx((found.value, found.low, found.high), abs=1e-9)


def test_statsmodels_fit_is_that_of_newtons_method() -> None:
    wins, longer = (np.arange(60) % 3 > 0) * 1.0, np.linspace(-2, 3, 60)
    theta = _resampled_intercepts(np.ones((1, 60)), wins, longer, np.zeros(2))[0]
    found = length_controlled_win_rate(wins, longer).value or 0
    assert math.log(found / (1 - found)) == pytest.approx(theta, abs=1e-6)


def test_separated_wins_have_a_finite_fit() -> None:
    longer = np.array([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0] * 10)
    for wins, low, high in ((np.ones(60), 0.98, 1.0), (np.zeros(60), 0.0, 0.02), ((longer > 0) * 1.0, 0.45, 0.55)):
        found = length_controlled_win_rate(wins, longer)
        assert found.value is not None
        assert low <= found.value <= high
        assert found.low is not None
        assert math.isfinite(found.low)


def test_equal_length_that_was_never_seen_is_undefined() -> None:
    wins = np.array([1.0, 0.0, 1.0, 1.0])
    assert length_controlled_win_rate(wins, np.array([1.0, 2.0, 3.0, 9.0])).value is None
    assert length_controlled_win_rate(wins, np.array([-1.0, -2.0, -3.0, -9.0])).value is None
    assert length_controlled_win_rate(wins, np.array([1.0, 2.0, 3.0, 9.0])).n == 4
    assert length_controlled_win_rate(wins[:1], np.array([0.0])) == Estimate(None, n=1)
    # Two prompts that mirror each other: neither intercept nor its sign is favoured.
    assert length_controlled_win_rate(wins[:2], np.array([-1.0, 1.0])).value == pytest.approx(0.5)
    # without any difference in length it is the plain rate, but for the ridge
    assert length_controlled_win_rate(wins, np.zeros(4)).value == pytest.approx(0.75, abs=0.005)


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


def test_win_rates_over_seeds_by_hand() -> None:
    a, b = np.array([[1.0, 2.0], [3.0, 0.0]]), np.array([[1.0, 1.0]])
    assert won(a, b).tolist() == [[[0.5, 1.0]], [[1.0, 0.0]]]
    drawn_rates = resampled_win_rates([a, b])
    assert drawn_rates.shape == (1, 2000)
    # either prompt twice, or both: means over the two seeds of ¾, ½ or between
    assert set(np.round(drawn_rates[0], 9)) == {0.5, 0.625, 0.75}
    with pytest.raises(ValueError, match="two prompts"):
        resampled_win_rates([a[:, :1], b[:, :1]])


def test_win_rates_resample_seeds_too() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(3, 40)) + np.array([[0.0], [1.0], [2.0]]), rng.normal(size=(4, 40))
    found = resampled_win_rates([a, b])[0]
    draw = random.Random(0)
    plain = []
    for _ in range(3000):
        units = [draw.randrange(40) for _ in range(40)]
        seeds = [draw.randrange(3) for _ in range(3)], [draw.randrange(4) for _ in range(4)]
        plain.append(np.mean([(a[i][units] > b[j][units]).mean() for i, j in product(*seeds)]))
    assert found.mean() == pytest.approx(np.mean(plain), abs=0.01)
    assert found.std() == pytest.approx(np.std(plain), rel=0.08)


def test_a_method_of_one_seed_may_come_first() -> None:
    rng = np.random.default_rng(4)
    one, three = rng.normal(size=(1, 20)), rng.normal(size=(3, 20))
    assert resampled_win_rates([one, three]) == pytest.approx(1 - resampled_win_rates([three, one]))
