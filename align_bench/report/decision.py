"""What one comparison allows to say."""

from __future__ import annotations

from dataclasses import replace

from align_bench.records import Comparison, Decision

ALPHA = 0.05


def decide(comparison: Comparison) -> Decision:
    """Whether a is higher or lower than b, equivalent to it, or neither was shown.

    A difference is shown by a Holm-adjusted p below 5%, and equivalence by a Holm-adjusted TOST. Where there is an
    interval but no test, it is the interval that decides.
    """
    if comparison.difference is None or (comparison.p_holm is None and comparison.low is None):
        return "undefined"
    p = comparison.p_holm
    shown = _excludes_zero(comparison.low, comparison.high) if p is None else p < ALPHA
    if shown:
        return "higher" if comparison.difference > 0 else "lower"
    return "equivalent" if _equivalent(comparison) else "none"


def decision(comparison: Comparison) -> Decision:
    """What the report decided; a report from before decisions were kept is decided now."""
    return decide(comparison) if comparison.decision is None else comparison.decision


def turned(comparison: Comparison) -> Comparison:
    """The same comparison as `b − a`."""
    opposite: dict[Decision | None, Decision] = {"higher": "lower", "lower": "higher"}
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
        method_low=_negative(comparison.method_high),
        method_high=_negative(comparison.method_low),
        decision=opposite.get(comparison.decision, comparison.decision),
    )


def _equivalent(comparison: Comparison) -> bool:
    p, margin = comparison.p_tost_holm, comparison.margin
    return p is not None and margin is not None and p < ALPHA


def _excludes_zero(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and not low <= 0 <= high


def _negative(number: float | None) -> float | None:
    return None if number is None else -number
