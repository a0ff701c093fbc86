"""Win rates at equal length."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from align_bench.metrics.clusters import Codes, cluster_codes
from align_bench.metrics.finite import Column, is_constant
from align_bench.metrics.mean import wanted
from align_bench.metrics.resampling import by_cluster
from align_bench.records import Estimate

# Prior precision of both coefficients: a standard deviation of 10. It moves a fit of a hundred prompts by less than
# 0.001, and keeps one finite where a policy wins, or loses, on every prompt or by length alone.
RIDGE = 0.01


def length_controlled_win_rate(wins: Column, longer: Column, prompts: Sequence[Hashable]) -> Estimate:
    """σ(θ) of the logistic regression σ(θ + φ·tanh(Δ/sd)), Δ the difference in length: the win rate at equal length.

    After length-controlled AlpacaEval (Dubois et al. 2024, arXiv:2404.04475, section 3), without its terms for models
    and instructions, which one pair of models has no use for. Coefficients have a ridge penalty of 0.01/2·(θ² + φ²), so
    that separated data have a fit too. The 95% interval is the t interval of θ with its error clustered over prompts
    (the sandwich, with statsmodels' correction G/(G − 1) for few of them): in simulations of 100 and 500 prompts it
    covers 94% to 97%, where a bootstrap of the whole fit covers 92% to 96%.

    Args:
        wins: 1, ½ or 0 for each pair of an answer of the policy and one of the other model to the same prompt.
        longer: length of the policy's answer less that of the other, in any unit.
        prompts: the prompt of each pair. Prompts weigh the same, whatever their number of pairs.

    Returns:
        `n` prompts. None without two of them, and where the policy's answer is the longer one in every pair, or the
        shorter one: equal length was then not seen. Where no answer differs in length, it is the plain win rate. No
        interval where the policy wins, or loses, every pair.
    """
    codes = cluster_codes(prompts, len(wins))
    pairs = np.bincount(codes).astype(np.float64)
    n = len(pairs)
    if n < 2 or not longer.min() <= 0 <= longer.max():
        return Estimate(None, n=n)
    from scipy.special import expit
    from scipy.stats import t as student

    weights = 1 / pairs[codes]
    mean = np.average(longer, weights=weights)
    spread = float(np.sqrt(np.average((longer - mean) ** 2, weights=weights)))
    length = np.tanh(longer / spread) if spread else np.zeros(len(wins))
    theta, phi = _fitted(wins, length, weights)
    influences = _influences(wins, length, weights, np.array([theta, phi]), codes)
    error = float(np.sqrt(n / (n - 1) * np.sum(influences**2)))
    value = float(expit(theta))
    if is_constant(wins):
        return Estimate(value, n=n)
    half = float(student.ppf(0.975, n - 1)) * error
    low, high = expit([theta - half, theta + half]).tolist()
    return Estimate(value, low, high, n, wanted(influences, n))


def _fitted(wins: Column, length: Column, weights: Column) -> Column:
    """θ and φ, by statsmodels."""
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_linear_model import GLM

    design = np.stack([np.ones_like(length), length], axis=1)
    model = GLM(wins, design, family=Binomial(), freq_weights=weights)
    fit: Column = model.fit_regularized(alpha=RIDGE / len(wins), L1_wt=0.0, opt_method="newton-cg").params
    return fit


def _influences(wins: Column, length: Column, weights: Column, fit: Column, codes: Codes) -> Column:
    """How far each prompt moves θ: its part in the score, times the inverse of the penalised information."""
    from scipy.special import expit

    design = np.stack([np.ones_like(length), length], axis=1)
    rate = expit(design @ fit)
    information = (design * (weights * rate * (1 - rate))[:, None]).T @ design + RIDGE * np.eye(2)
    scores = by_cluster(list((design * (weights * (wins - rate))[:, None]).T), codes)
    moved: Column = np.linalg.solve(information, scores.T)[0]
    return moved
