"""Scores in groups by their answer, and Welch's test by hand."""

from __future__ import annotations

import math

import pytest

from align_bench.metrics.score_groups import score_groups, welch_test


def test_the_higher_score_goes_to_the_group_of_its_answer() -> None:
    groups = score_groups([2.0, 1.0, 5.0, 3.0, None, 7.0], [1.0, 4.0, -1.0, 3.0, 1.0, math.nan])
    assert groups.correct.tolist() == [2.0, 5.0]
    assert groups.wrong.tolist() == [4.0]
    assert groups.ties == 1


def test_welch_by_hand() -> None:
    # means 3 and 1, variances 4 and 1, so t = 2 / √(4/3 + 1/3) and df by Welch–Satterthwaite.
    found = welch_test([1.0, 3.0, 5.0], [0.0, 1.0, 2.0])
    error = math.sqrt(4 / 3 + 1 / 3)
    df = (4 / 3 + 1 / 3) ** 2 / ((4 / 3) ** 2 / 2 + (1 / 3) ** 2 / 2)
    assert found.difference == 2.0
    assert found.t == pytest.approx(2 / error, rel=1e-12)
    assert found.df == pytest.approx(df, rel=1e-12)
    assert found.low is not None
    assert found.high is not None
    assert found.low + found.high == pytest.approx(4.0)
    assert (found.high - found.low) / 2 == pytest.approx(quantile(df) * error, rel=1e-6)
    assert found.p == pytest.approx(2 * tail(2 / error, df), rel=1e-6)


def tail(t: float, df: float, steps: int = 20_000) -> float:
    """P(T > t) of Student's t, by Simpson's rule on t = tan(angle)."""
    scale = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)

    def density(angle: float) -> float:
        x = math.tan(angle)
        return float(scale * (1 + x * x / df) ** (-(df + 1) / 2) * (1 + x * x))

    low, high = math.atan(t), math.pi / 2 - 1e-9
    width = (high - low) / steps
    inner = sum((4 if step % 2 else 2) * density(low + step * width) for step in range(1, steps))
    return (density(low) + inner + density(high)) * width / 3


def quantile(df: float) -> float:
    low, high = 0.0, 100.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle, df, 2_000) > 0.025 else (low, middle)
    return low


def test_welch_is_not_student_and_has_a_sign() -> None:
    narrow, wide = [1.0, 1.1, 0.9, 1.0, 1.05, 0.95], [0.0, 4.0]
    found, turned = welch_test(narrow, wide), welch_test(wide, narrow)
    assert found.difference == pytest.approx(-1.0)
    assert found.t == pytest.approx(-(turned.t or 0))
    assert found.df == pytest.approx(1.0, abs=0.01)  # Student's would be 6
    assert found.p == turned.p


def test_what_welch_cannot_say_is_undefined() -> None:
    assert welch_test([], [1.0]).difference is None
    assert welch_test([1.0], []).difference is None
    assert (welch_test([1.0], [0.0, 2.0]).difference, welch_test([1.0], [0.0, 2.0]).p) == (0.0, None)
    assert (welch_test([3.0, 3.0], [1.0, 1.0]).difference, welch_test([3.0, 3.0], [1.0, 1.0]).p) == (2.0, None)
    assert welch_test([3.0, 3.0], [1.0, 2.0]).p is not None
    assert welch_test([1.0, 2.0], [3.0, 3.0]).p is not None
    assert welch_test([None, 1.0, 3.0], [math.inf, 0.0, 1.0]).difference == 1.5
