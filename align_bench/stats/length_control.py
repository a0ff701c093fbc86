"""Win rates at equal length."""

from __future__ import annotations

import numpy as np

from align_bench.metrics.finite import Column
from align_bench.records import Estimate
from align_bench.stats.bootstrap import Matrix, resample_counts

# Prior precision of both coefficients: a standard deviation of 10. It moves a fit of a hundred prompts by less than
# 0.001, and keeps one finite where a policy wins, or loses, on every prompt or by length alone.
RIDGE = 0.01
LARGEST_STEP = 3.0
STEPS = 100


def length_controlled_win_rate(wins: Column, longer: Column) -> Estimate:
    """σ(θ) of the logistic regression σ(θ + φ·tanh(Δ/sd)), Δ the difference in length: the win rate at equal length.

    After length-controlled AlpacaEval (Dubois et al. 2024, arXiv:2404.04475, section 3), without its terms for models
    and instructions, which one pair of models has no use for. Coefficients have a ridge penalty of 0.01/2·(θ² + φ²), so
    that separated data have a fit too. The point is statsmodels'; the 95% interval is a percentile bootstrap of the
    whole fit, sd included, over prompts (scipy, 2,000 resamples), whose fits are made at once.

    Args:
        wins: 1, ½ or 0 for each prompt.
        longer: length of the policy's answer less that of the other, in any unit.

    Returns:
        None without two prompts, and where the policy's answer is the longer one on every prompt, or the shorter one:
        equal length was then not seen. Where no answer differs in length, it is the plain win rate.
    """
    n = len(wins)
    if n < 2 or not longer.min() <= 0 <= longer.max():
        return Estimate(None, n=n)
    from scipy.special import expit

    fit = _fitted(wins, np.tanh(longer / spread) if (spread := float(np.std(longer))) else np.zeros(n))
    low, high = resample_counts(n, lambda counts: expit(_resampled_intercepts(counts, wins, longer, fit))[..., None])[0]
    return Estimate(float(expit(fit[0])), float(low), float(high), n)


def _fitted(wins: Column, length: Column) -> Column:
    """θ and φ, by statsmodels."""
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_linear_model import GLM

    model = GLM(wins, np.stack([np.ones_like(length), length], axis=1), family=Binomial())
    fit: Column = model.fit_regularized(alpha=RIDGE / len(wins), L1_wt=0.0, opt_method="newton-cg").params
    return fit


def _resampled_intercepts(counts: Matrix, wins: Column, longer: Column, start: Column) -> Matrix:
    """The intercept of each resample by Newton's method, all fits at once; shape [resamples].

    statsmodels makes one fit at a time, in milliseconds: a minute for thirty policies.

    Args:
        counts: how often each prompt was drawn, shape [resamples, prompts].
        wins, longer: as above.
        start: θ and φ of all prompts, near which the others lie.
    """
    from scipy.special import expit

    total = counts.sum(1, keepdims=True)
    mean = counts @ longer[:, None] / total
    spread = np.sqrt((counts * (longer - mean) ** 2).sum(1, keepdims=True) / total)
    length = np.tanh(longer / np.where(spread > 0, spread, np.inf))
    theta, phi = (np.full(len(counts), value) for value in start)
    for _ in range(STEPS):
        rate = expit(theta[:, None] + phi[:, None] * length)
        off = counts * (wins - rate)
        weight = counts * rate * (1 - rate)
        slope = off.sum(1) - RIDGE * theta, _dot(off, length) - RIDGE * phi
        curve = weight.sum(1) + RIDGE, _dot(weight, length), _dot(weight, length**2) + RIDGE
        determinant = curve[0] * curve[2] - curve[1] ** 2
        steps = (
            (curve[2] * slope[0] - curve[1] * slope[1]) / determinant,
            (curve[0] * slope[1] - curve[1] * slope[0]) / determinant,
        )
        # Far from the optimum a full step may overshoot for ever.
        shrink = LARGEST_STEP / np.maximum(LARGEST_STEP, np.maximum(np.abs(steps[0]), np.abs(steps[1])))
        theta, phi = theta + shrink * steps[0], phi + shrink * steps[1]
        if max(np.abs(steps[0]).max(), np.abs(steps[1]).max()) < 1e-6:
            break
    return theta


def _dot(left: Matrix, right: Matrix) -> Matrix:
    """Sums of products along each row."""
    result: Matrix = np.einsum("ij,ij->i", left, right)
    return result
