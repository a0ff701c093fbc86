"""What a comparison of this size can find, and how many seeds it takes to find a difference between methods."""

from __future__ import annotations

from collections.abc import Callable

from align_bench.stats.seeds import MIN_SEEDS

POWER = 0.8
ALPHA = 0.05
LARGEST_EFFECT = 1000.0
MOST_SEEDS = 20
DRAWS = 4000
# The part of the differences on single prompts that all seeds of two methods share: the rest averages out over seeds.
SHARED = 0.5


def detectable_effect(n: int, tests: int = 1) -> float | None:
    """Smallest Cohen's dz that a two-sided paired t-test finds with 80% power.

    Args:
        n: pairs of observations.
        tests: size of the family; alpha is 0.05 / tests, as at Holm's first step.

    Returns:
        dz in standard deviations of the differences; None for fewer than two pairs or no test, and where the power
        cannot be computed or needs more than 1000.
    """
    if n < 2 or tests < 1:
        return None
    from statsmodels.stats.power import TTestPower

    power = TTestPower().power
    return _smallest(lambda effect: float(power(effect, n, ALPHA / tests / 2, alternative="larger")))


def detectable_between_seeds(n: int, tests: int = 1) -> float | None:
    """Smallest difference that a t-test between two methods with n seeds each finds with 80% power.

    Args:
        n: seeds of each method.
        tests: as in `detectable_effect`.

    Returns:
        In standard deviations of a method's means over seeds; None as in `detectable_effect`.
    """
    if n < 2 or tests < 1:
        return None
    from statsmodels.stats.power import TTestIndPower

    power = TTestIndPower().power
    return _smallest(lambda effect: float(power(effect, n, ALPHA / tests / 2, alternative="larger")))


def power_between_methods(dz: float, seed_noise: float, seeds: int, prompts: int, tests: int = 1) -> float | None:
    """Power to find a difference between two methods by their seeds × prompts, at 0.05 / tests, two-sided.

    The test is Student's t with the sum of the two methods' variances over seeds and that over prompts, and
    Satterthwaite's degrees of freedom. Its power is the mean over 4,000 draws of these variances (chi-squared,
    generator seeded with 0) for a difference with variance 2 σ² / k + (SHARED + (1 − SHARED) / k) / n, for k seeds and
    n prompts. The noncentral t with the expected variances is up to 5 points above simulations of few seeds.

    Args:
        dz: difference / standard deviation over prompts of the difference between two checkpoints.
        seed_noise: σ, the standard deviation of a method's mean over seeds without the noise of prompts, in the same
            unit.
        seeds: k, of each method.
        prompts: n.
        tests: size of the family; alpha is that of Holm's first step.

    Returns:
        None for fewer than three seeds, two prompts or one test.
    """
    if seeds < MIN_SEEDS or prompts < 2 or tests < 1:
        return None
    import numpy as np
    from scipy.special import ndtr, stdtrit  # scipy.stats would take a plan a fifth of its time to import

    own = (1 - SHARED) / 2 / prompts  # of one method's seed mean, the noise of the prompts
    over_prompts = (SHARED + (1 - SHARED) / seeds) / prompts
    over_seeds = (seed_noise**2 + own) / seeds
    twice = 2 * own / seeds  # what both hold of the variance
    rng = np.random.default_rng(0)
    drawn = over_prompts * rng.chisquare(prompts - 1, DRAWS) / (prompts - 1)
    each = over_seeds * rng.chisquare(seeds - 1, (2, DRAWS)) / (seeds - 1)
    found = np.maximum(drawn, drawn + each.sum(axis=0) - twice)
    df = found**2 / (drawn**2 / (prompts - 1) + (each**2).sum(axis=0) / (seeds - 1))
    critical = -stdtrit(np.maximum(df, min(seeds, prompts) - 1), ALPHA / tests / 2) * np.sqrt(found)
    error = (over_prompts + 2 * over_seeds - twice) ** 0.5
    return float(np.mean(ndtr((abs(dz) - critical) / error)))


def seeds_needed(dz: float, seed_noise: float, prompts: int, tests: int = 1) -> int | None:
    """The fewest seeds of each method that find a difference with 80% power; None where 20 do not.

    Args:
        dz, seed_noise, prompts, tests: as in `power_between_methods`.
    """
    for seeds in range(MIN_SEEDS, MOST_SEEDS + 1):
        if (power_between_methods(dz, seed_noise, seeds, prompts, tests) or 0.0) >= POWER:
            return seeds
    return None


def _smallest(power: Callable[[float], float]) -> float | None:
    """The root of a power function in the effect, one-sided at alpha / 2.

    At 80% power the other tail holds less than a millionth, and computing it yields NaN for many n. statsmodels' own
    `solve_power` misses the root for some n and alpha (such as n = 500 and 1000 tests).
    """
    from scipy.optimize import brentq

    low, high = 1e-9, 1e-3
    while power(high) < POWER and high < LARGEST_EFFECT:
        low, high = high, 2 * high
    if not power(high) >= POWER:
        return None
    return float(brentq(lambda effect: power(effect) - POWER, low, high, xtol=1e-9))
