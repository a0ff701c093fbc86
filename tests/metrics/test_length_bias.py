from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest

from align_bench.metrics.length_bias import length_correlation

PAIRS = 80


def pairs(seed: int = 0, slope: float = 0.1) -> list[list[float]]:
    """Scores that rise with length by `slope` a word and with worth by 1; better answers are longer by 5 words."""
    draw = random.Random(seed)
    better_words = [float(draw.randint(6, 30)) for _ in range(PAIRS)]
    worse_words = [float(draw.randint(1, 25)) for _ in range(PAIRS)]
    better = [1 + slope * words + draw.gauss(0, 1) for words in better_words]
    worse = [slope * words + draw.gauss(0, 1) for words in worse_words]
    return [better, worse, better_words, worse_words]


def naive(better: list[float], worse: list[float], better_words: list[float], worse_words: list[float]) -> float:
    """The textbook formula for a partial correlation, with a dummy for being better."""
    scores, words = [*better, *worse], [*better_words, *worse_words]
    dummy = [1.0] * len(better) + [0.0] * len(worse)
    sw, sd, wd = (statistics.correlation(*two) for two in ((scores, words), (scores, dummy), (words, dummy)))
    return (sw - sd * wd) / math.sqrt((1 - sd**2) * (1 - wd**2))


@pytest.mark.parametrize("slope", [0.1, 0.0, -0.3])
def test_equals_the_textbook_partial_correlation(slope: float) -> None:
    for seed in range(3):
        found = length_correlation(*pairs(seed, slope))
        assert found.value == pytest.approx(naive(*pairs(seed, slope)), rel=1e-9)
        assert found.n == PAIRS


def test_interval_is_a_bootstrap_over_pairs() -> None:
    columns = pairs()
    found, draw = length_correlation(*columns), random.Random(1)
    drawn = []
    for _ in range(1000):
        rows = [draw.randrange(PAIRS) for _ in range(PAIRS)]
        drawn.append(naive(*([column[row] for row in rows] for column in columns)))
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert found.low == pytest.approx(low, abs=0.03)
    assert found.high == pytest.approx(high, abs=0.03)


def test_worth_that_goes_with_length_is_no_bias() -> None:
    better, worse, better_words, worse_words = pairs(slope=0.0)
    right_and_long = length_correlation(better, worse, [words + 20 for words in better_words], worse_words)
    assert right_and_long.value == pytest.approx(length_correlation(better, worse, better_words, worse_words).value)


def test_a_scores_unit_does_not_matter() -> None:
    better, worse, *words = pairs()
    scaled = length_correlation([3 * x - 7 for x in better], [3 * x - 7 for x in worse], *words)
    assert scaled.value == pytest.approx(length_correlation(better, worse, *words).value)


def test_what_does_not_vary_is_undefined() -> None:
    same = [1.0] * 5
    assert length_correlation(same, same, [1, 2, 3, 4, 5], same).value is None
    assert length_correlation([1, 2, 3, 4, 5], same, same, same).value is None
    assert length_correlation([1.0], [0.0], [2], [3]).value is None
    assert length_correlation([], [], [], []).value is None
    missing = length_correlation([1.0, None, 2.0], [0.0, 1.0, 3.0], [2, 3, 5], [3, 4, 6])
    assert missing.n == 2
