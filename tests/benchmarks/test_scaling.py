"""The benchmark of growth: what it fits, what it calls linear, and that it goes on where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import scaling
import scaling_parts
from scaling import Axis, Kept
from scaling_parts import Point

AXIS = Axis("rows", (1, 10, 100), (1, 2), most_bytes=5000)


def points(power: float, bytes_per_row: int = 0) -> list[Kept]:
    """Three sizes; the smallest takes longer than its share, as starting does."""
    taken = [(1, 50.0), (10, 10**power), (100, 100**power)]
    return [Kept(size, seconds, seconds, 1000 + bytes_per_row * size, 1000, {}, "abc") for size, seconds in taken]


def test_the_exponent_is_that_of_the_largest_sizes() -> None:
    linear, quadratic = (scaling.growth(AXIS, points(power)) for power in (1.0, 2.0))
    assert (linear.exponent, linear.linear) == (1.0, True)
    assert (quadratic.exponent, quadratic.linear) == (2.0, False)


def test_memory_is_told_per_row_and_held_to_its_bound() -> None:
    within, beyond = (scaling.growth(AXIS, points(1.0, own)) for own in (40, 41))
    assert (within.bytes_per_unit, within.bounded) == (40.0, True)
    assert (beyond.bytes_per_unit, beyond.bounded) == (41.0, False)


def test_what_grows_as_it_must_is_held_against_its_count() -> None:
    """Twice as many methods are four times as many comparisons."""
    found = [Point(size, size**2.0, size**2.0, 0, 0, {"comparisons": size**2}) for size in (10, 20)]
    assert scaling.growth(scaling.AXES["report methods"], found).exponent == 1.0


def test_the_page_says_what_is_too_steep() -> None:
    assert "Steeper than linear (an exponent above 1.1): none." in scaling.page({"tokenising": points(1.0)}, "m")
    page = scaling.page({"tokenising": points(2.0), "report examples": points(1.0, 10**9)}, "m")
    assert "an exponent above 1.1): tokenising. More memory than allowed: report examples." in page


def test_a_run_goes_on_where_it_was_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []

    def measured(part: str, size: int, folder: Path) -> Point:
        asked.append((part, size))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return Point(size, 1.0 * size, 1.0 * size, 100, 50, {})

    monkeypatch.setattr(scaling, "in_child", measured)
    monkeypatch.setattr(
        "sys.argv", ["scaling.py", "--quick", "--parts", "tokenising", "--out", str(tmp_path / "found")]
    )
    with pytest.raises(KeyboardInterrupt):
        scaling.main()
    scaling.main()
    assert asked == [("tokenising", 40), ("tokenising", 80), ("tokenising", 80)]
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["parts"]["tokenising"]
    assert (found["exponent"], [point["size"] for point in found["points"]]) == (1.0, [40, 80])
    assert all(point["commit"] for point in found["points"])


@pytest.mark.parametrize("part", scaling.AXES)
def test_each_part_is_measured(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling_parts, "in_child", lambda other, *given: scaling_parts.PARTS[other](*given))
    size = scaling.AXES[part].quick[0]
    found = scaling_parts.PARTS[part](size, tmp_path)
    assert found.size == size
    assert found.seconds > 0
    assert found.peak_bytes >= found.start_bytes > 0


def test_a_part_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    found = scaling_parts.in_child("plan seeds", 1, tmp_path)
    assert (found.size, found.seconds > 0, found.processor_seconds > 0) == (1, True, True)
    assert found.peak_bytes >= found.start_bytes > 0
