"""What no other buys more cheaply."""

from __future__ import annotations

from align_bench.metrics.finite import Numbers, is_finite


def pareto(costs: Numbers, qualities: Numbers) -> list[bool | None]:
    """Whether each is in the Pareto set: no other is at least as good at no more cost, and better in one of the two.

    Equal ones are in it together.

    Args:
        costs: lower is better, in any unit.
        qualities: higher is better, in any unit.

    Returns:
        One a row; None where a number is missing or not finite, and such a row rules out no other.
    """
    points = list(zip(costs, qualities, strict=True))
    known = [(cost, quality) for cost, quality in points if is_finite(cost) and is_finite(quality)]
    return [
        not any(_beats(other, point) for other in known) if is_finite(point[0]) and is_finite(point[1]) else None
        for point in points
    ]


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[0] and one[1] >= other[1] and one != other
