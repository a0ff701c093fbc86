"""What a comparison of this size could have found."""

from __future__ import annotations

POWER = 0.8
ALPHA = 0.05
LARGEST_EFFECT = 1000.0


def detectable_effect(n: int, tests: int = 1) -> float | None:
    """Smallest Cohen's dz that a two-sided paired t-test finds with 80% power.

    The root of statsmodels' `TTestPower.power` in the effect, one-sided at alpha / 2: at 80% power the other tail
    holds less than a millionth, and computing it yields NaN for many n. Its own `solve_power` misses the root for some
    n and alpha (such as n = 500 and 1000 tests).

    Args:
        n: pairs of observations.
        tests: size of the family; alpha is 0.05 / tests, as at Holm's first step.

    Returns:
        dz in standard deviations of the differences; None for fewer than two pairs or no test, and where the power
        cannot be computed or needs more than 1000.
    """
    if n < 2 or tests < 1:
        return None
    from scipy.optimize import brentq
    from statsmodels.stats.power import TTestPower

    solver = TTestPower()

    def lacking(effect: float) -> float:
        return float(solver.power(effect, n, ALPHA / tests / 2, alternative="larger")) - POWER

    low, high = 1e-9, 1e-3
    while lacking(high) < 0 and high < LARGEST_EFFECT:
        low, high = high, 2 * high
    if not lacking(high) >= 0:
        return None
    return float(brentq(lacking, low, high, xtol=1e-9))
