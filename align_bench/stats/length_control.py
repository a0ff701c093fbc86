"""Win rates at equal length."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from align_bench.metrics.clusters import cluster_codes
from align_bench.metrics.finite import Column
from align_bench.records import Estimate
from align_bench.stats.bootstrap import Matrix, resample_counts

# Prior precision of both coefficients: a standard deviation of 10. It moves a fit of a hundred prompts by less than
# 0.001, and keeps one finite where a policy wins, or loses, on every prompt or by length alone.
RIDGE = 0.01
LARGEST_STEP = 3.0
STEPS = 100


def length_controlled_win_rate(wins: Column, longer: Column, prompts: Sequence[Hashable]) -> Estimate:
    """σ(θ) of the logistic regression σ(θ + φ·tanh(Δ/sd)), Δ the difference in length: the win rate at equal length.

    After length-controlled AlpacaEval (Dubois et al. 2024, arXiv:2404.04475, section 3), without its terms for models
    and instructions, which one pair of models has no use for. Coefficients have a ridge penalty of 0.01/2·(θ² + φ²), so
    that separated data have a fit too. The point is statsmodels'; the 95% interval is a percentile bootstrap of the
    whole fit, sd included, over prompts (scipy, 2,000 resamples), whose fits are made at once.

    Args:
        wins: 1, ½ or 0 for each pair of an answer of the policy and one of the other model to the same prompt.
        longer: length of the policy's answer less that of the other, in any unit.
        prompts: the prompt of each pair. Prompts weigh the same, whatever their number of pairs.

    Returns:
        `n` prompts. None without two of them, and where the policy's answer is the longer one in every pair, or the
        shorter one: equal length was then not seen. Where no answer differs in length, it is the plain win rate.
    """
    codes = cluster_codes(prompts, len(wins))
    pairs = np.bincount(codes).astype(np.float64)
    n = len(pairs)
    if n < 2 or not longer.min() <= 0 <= longer.max():
        return Estimate(None, n=n)
    from scipy.special import expit

    weights = 1 / pairs[codes]
    mean = np.average(longer, weights=weights)
    spread = float(np.sqrt(np.average((longer - mean) ** 2, weights=weights)))
    fit = _fitted(wins, np.tanh(longer / spread) if spread else np.zeros(len(wins)), weights)

    def rates(counts: Matrix) -> Matrix:
        of_pairs = counts[..., codes] * weights
        found: Matrix = expit(_resampled_intercepts(of_pairs, wins, longer, fit))[..., None]
        return found

    low, high = resample_counts(n, rates)[0]
    return Estimate(float(expit(fit[0])), float(low), float(high), n)


def _fitted(wins: Column, length: Column, weights: Column) -> Column:
    """θ and φ, by statsmodels."""
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_linear_model import GLM

    design = np.stack([np.ones_like(length), length], axis=1)
    model = GLM(wins, design, family=Binomial(), freq_weights=weights)
    fit: Column = model.fit_regularized(alpha=RIDGE / len(wins), L1_wt=0.0, opt_method="newton-cg").params
    return fit


def _resampled_intercepts(counts: Matrix, wins: Column, longer: Column, start: Column) -> Matrix:
    """The intercept of each resample by Newton's method, all fits at once; shape [resamples].

    statsmodels makes one fit at a time, in milliseconds: a minute for thirty policies.

    Args:
        counts: the weight of each pair of answers, which is how often its prompt was drawn over the number of the
            prompt's pairs; shape [resamples, pairs].
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
