"""What one comparison allows to say."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from align_bench.records import Comparison

ALPHA = 0.05

Decision = Literal["higher", "lower", "equivalent", "none", "undefined"]


def decide(comparison: Comparison) -> Decision:
    """Whether a is higher or lower than b, equivalent to it, or neither was shown.

    A difference is shown by a Holm-adjusted p below 5%; between methods, the interval over resampled seeds and prompts
    must exclude 0 as well, because a test over seeds says nothing of other prompts. Equivalence is shown by a
    Holm-adjusted TOST; between methods, that interval must lie within the margin as well. Where there is an interval
    but no test, it is the interval that decides, without an adjustment.
    """
    if comparison.difference is None or (comparison.p_holm is None and comparison.low is None):
        return "undefined"
    p = comparison.p_holm
    shown = _excludes_zero(comparison.low, comparison.high) if p is None else p < ALPHA
    if shown and comparison.level == "method" and comparison.bootstrap_low is not None:
        shown = _excludes_zero(comparison.bootstrap_low, comparison.bootstrap_high)
    if shown:
        return "higher" if comparison.difference > 0 else "lower"
    return "equivalent" if _equivalent(comparison) else "none"


def turned(comparison: Comparison) -> Comparison:
    """The same comparison as `b − a`."""
    return replace(
        comparison,
        a=comparison.b,
        b=comparison.a,
        difference=_negative(comparison.difference),
        effect=_negative(comparison.effect),
        low=_negative(comparison.high),
        high=_negative(comparison.low),
        bootstrap_low=_negative(comparison.bootstrap_high),
        bootstrap_high=_negative(comparison.bootstrap_low),
    )


def _equivalent(comparison: Comparison) -> bool:
    p, margin = comparison.p_tost_holm, comparison.margin
    if p is None or margin is None or p >= ALPHA:
        return False
    low, high = comparison.bootstrap_low, comparison.bootstrap_high
    if comparison.level == "checkpoint" or low is None or high is None:
        return True
    return -margin < low and high < margin


def _excludes_zero(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and not low <= 0 <= high


def _negative(number: float | None) -> float | None:
    return None if number is None else -number
