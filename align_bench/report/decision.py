"""What one comparison allows to say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

ALPHA = 0.05

BOUNDS = (("low", "high"), ("bootstrap_low", "bootstrap_high"))

Decision = Literal["higher", "lower", "equivalent", "none", "undefined"]


def decide(found: Mapping[str, Any]) -> Decision:
    """Whether a is higher or lower than b, equivalent to it, or neither was shown.

    A difference is shown by a Holm-adjusted p below 5%; between methods, the interval over resampled seeds and prompts
    must exclude 0 as well, because a test over seeds says nothing of other prompts. Equivalence is shown by a
    Holm-adjusted TOST; between methods, that interval must lie within the margin as well. Where there is an interval
    but no test, it is the interval that decides, without an adjustment.

    Args:
        found: a row of the report's `comparisons`.
    """
    p, low, high = found["p_holm"], found["low"], found["high"]
    if p is None and low is None:
        return "undefined"
    shown = not low <= 0 <= high if p is None else p < ALPHA
    if shown and found["level"] == "method" and found["bootstrap_low"] is not None:
        shown = not found["bootstrap_low"] <= 0 <= found["bootstrap_high"]
    if shown:
        return "higher" if found["difference"] > 0 else "lower"
    return "equivalent" if _equivalent(found) else "none"


def _equivalent(found: Mapping[str, Any]) -> bool:
    p, margin = found["p_tost_holm"], found["margin"]
    if p is None or p >= ALPHA:
        return False
    if found["level"] == "checkpoint" or found["bootstrap_low"] is None:
        return True
    return bool(-margin < found["bootstrap_low"] and found["bootstrap_high"] < margin)


def turned(found: Mapping[str, Any]) -> dict[str, Any]:
    """The same comparison as `b − a`."""
    flipped = {
        key: None if found[key] is None else -found[key]
        for key in ("difference", "effect", "low", "high", "bootstrap_low", "bootstrap_high")
    }
    swapped = {low: flipped[high] for low, high in BOUNDS} | {high: flipped[low] for low, high in BOUNDS}
    return {**found, **flipped, **swapped, "a": found["b"], "b": found["a"]}
