"""Which of a method's trials is kept."""

from __future__ import annotations

import pytest

from align_bench.stages.trials import best


@pytest.mark.parametrize(
    ("scores", "number"),
    [
        ([0.5, 0.7, 0.6], 1),
        ([0.7, 0.7], 0),
        ([None, 0.1], 1),
        ([0.2, None, 0.3, 0.3], 2),
        ([None, None], 0),
        ([0.0], 0),
    ],
)
def test_best_is_the_highest_and_the_earlier_of_equals(scores: list[float | None], number: int) -> None:
    assert best(scores) == number
