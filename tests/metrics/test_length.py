from __future__ import annotations

import math

import pytest

from align_bench.metrics.length import count_words, mean_characters, mean_words, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("  \n", 0),
        ("- * —", 0),
        ("The cat sat.", 3),
        ("don't, e-mail 3.14", 3),
        ("我爱编程。", 4),
        ("我爱 Python 编程", 5),
        ("カタカナ", 4),
        ("한국어 문장", 2),
        ("naïve Straße", 2),
    ],
)
def test_count_words(text: str, words: int) -> None:
    assert count_words(text) == words


def test_mean_words_averages_the_samples_of_a_prompt() -> None:
    found = mean_words(["a b c", "a", "a b c d e f"], [0, 0, 1])
    assert (found.value, found.n) == (4.0, 2)
    alone = mean_words(["a", "a b", "a b c"])
    assert alone.value == 2.0
    assert alone.high == pytest.approx(2 + 4.302652729911275 / math.sqrt(3), rel=1e-9)


def test_words_and_characters() -> None:
    assert split_words("- It's 编程, 3.14 — ok.") == ["It's", "编", "程", "3.14", "ok."]
    found = mean_characters(["abc", "a", "我 x!"], [0, 0, 1])
    assert (found.value, found.n) == (3.0, 2)
