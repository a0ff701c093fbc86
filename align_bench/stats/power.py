"""What a comparison of this size could have found."""

from __future__ import annotations

from collections.abc import Callable

POWER = 0.8
ALPHA = 0.05
LARGEST_EFFECT = 1000.0


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
