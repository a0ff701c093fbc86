from __future__ import annotations

import random
import tracemalloc
from collections import Counter

import pytest

from align_bench.metrics import diversity
from align_bench.metrics.diversity import distinct, mean_repetition, ngrams, repetition


def test_ngrams_know_neither_case_nor_marks() -> None:
    assert ngrams("The cat, 'THE' (cat)!", 2) == [("the", "cat"), ("cat", "the"), ("the", "cat")]
    assert ngrams("我爱编", 2) == [("我", "爱"), ("爱", "编")]
    assert ngrams("don't STRASSE straße", 1) == [("don't",), ("strasse",), ("strasse",)]
    assert ngrams("one two", 3) == []


def naive_grams(text: str, n: int) -> list[str]:
    words = [word.strip(".,!").lower() for word in text.split()]
    return [" ".join(words[start : start + n]) for start in range(len(words) - n + 1)]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_distinct_equals_counting(n: int) -> None:
    draw = random.Random(n)
    texts = [" ".join(draw.choice(["a", "b", "C", "d."]) for _ in range(draw.randint(0, 9))) for _ in range(20)]
    every = Counter(gram for text in texts for gram in naive_grams(text, n))
    (found,) = distinct(texts, [n])
    assert found.value == pytest.approx(len(every) / every.total(), rel=1e-12)
    assert (found.n, found.low, found.high) == (every.total(), None, None)


def test_distinct_is_exact_where_numbers_would_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    texts = [" ".join(f"w{draw.randrange(30)}" for _ in range(draw.randint(0, 9))) for _ in range(40)]
    for n in (2, 3, 4, 5):
        (whole,) = distinct(texts, [n])
        every = [gram for text in texts for gram in ngrams(text, n)]
        assert (whole.value, whole.n) == (len(set(every)) / len(every), len(every))
        with monkeypatch.context() as patch:
            patch.setattr(diversity, "_MOST", 1000)
            assert distinct(texts, [n]) == [whole]


def test_distinct_holds_a_number_per_ngram() -> None:
    """Tuples of words would take more than a hundred bytes each."""
    texts = [" ".join(f"w{(7919 * place + 31 * word) % 4001}" for word in range(200)) for place in range(200)]
    distinct(texts[:2], [3])
    tracemalloc.start()
    (found,) = distinct(texts, [3])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.n == 200 * 198
    assert peak < 70 * found.n


def test_distinct_by_hand() -> None:
    # a b, b a | a b: two different of three; no n-gram spans both answers.
    words, pairs, none = distinct(["a b a", "A b."], [1, 2, 4])
    assert words.value == pytest.approx(2 / 5)
    assert pairs.value == pytest.approx(2 / 3)
    assert (none.value, none.n) == (None, 0)
    assert [found.value for found in distinct(["a", "b"], [2])] == [None]
    assert [found.value for found in distinct([], [1])] == [None]


def test_repetition_by_hand() -> None:
    # Seven 4-grams, of which "a b c d" comes twice and "b c d a" twice.
    assert repetition("a b c d a b c d a e") == pytest.approx(2 / 7)
    assert repetition("a b c d e") == 0.0
    assert repetition("a b c") is None
    assert repetition("a a a", 2) == 0.5
    found = mean_repetition(["a a a a a a", "a b c d", "too short", "a b c d e"], [0, 0, 1, 2])
    assert found.value == pytest.approx(((2 / 3 + 0) / 2 + 0) / 2)
    assert found.n == 2
