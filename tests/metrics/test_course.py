"""The course's analyses and quality per cost, against naive re-derivations and values made by hand."""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter

import pytest

from align_bench.metrics.distribution import Distribution, describe
from align_bench.metrics.diversity import distinct, mean_repetition, ngrams, repetition
from align_bench.metrics.keywords import keywords, segment
from align_bench.metrics.length import mean_characters, split_words
from align_bench.metrics.pareto import pareto
from align_bench.metrics.score_groups import score_groups, welch_test

# -- score groups ------------------------------------------------------------------------------------------------------


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
        return scale * (1 + x * x / df) ** (-(df + 1) / 2) * (1 + x * x)

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


# -- distributions -----------------------------------------------------------------------------------------------------


def test_distribution_by_hand() -> None:
    found = describe([1.0, None, 2.0, 4.0, math.nan, 9.0, 4.0])
    assert found == Distribution(7, 5, 4.0, found.std, 2.0, 4.0, 4.0)
    assert found.std == pytest.approx(statistics.stdev([1, 2, 4, 9, 4]), rel=1e-12)


def test_quartiles_are_linear_between_neighbours() -> None:
    draw = random.Random(3)
    values = [draw.gauss(0, 1) for _ in range(14)]
    found = describe(values)
    quartiles = statistics.quantiles(values, n=4, method="inclusive")
    assert [found.q1, found.median, found.q3] == pytest.approx(quartiles, rel=1e-12)


def test_few_values_leave_undefined_what_they_cannot_say() -> None:
    assert describe([]) == Distribution(0, 0, None, None, None, None, None)
    assert describe([None, None]) == Distribution(2, 0, None, None, None, None, None)
    assert describe([3.0]) == Distribution(1, 1, 3.0, None, 3.0, 3.0, 3.0)
    assert describe([1.0, 3.0]).std == pytest.approx(math.sqrt(2))


# -- diversity ---------------------------------------------------------------------------------------------------------


def test_words_and_characters() -> None:
    assert split_words("- It's 编程, 3.14 — ok.") == ["It's", "编", "程", "3.14", "ok."]
    found = mean_characters(["abc", "a", "我 x!"], [0, 0, 1])
    assert (found.value, found.n) == (3.0, 2)


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
    found = distinct(texts, n)
    assert found.value == pytest.approx(len(every) / every.total(), rel=1e-12)
    assert (found.n, found.low, found.high) == (every.total(), None, None)


def test_distinct_by_hand() -> None:
    # a b, b a | a b: two different of three; no n-gram spans both answers.
    assert distinct(["a b a", "A b."], 2).value == pytest.approx(2 / 3)
    assert distinct(["a", "b"], 2).value is None
    assert distinct([], 1).value is None


def test_repetition_by_hand() -> None:
    # Seven 4-grams, of which "a b c d" comes twice and "b c d a" twice.
    assert repetition("a b c d a b c d a e") == pytest.approx(2 / 7)
    assert repetition("a b c d e") == 0.0
    assert repetition("a b c") is None
    assert repetition("a a a", 2) == 0.5
    found = mean_repetition(["a a a a a a", "a b c d", "too short", "a b c d e"], [0, 0, 1, 2])
    assert found.value == pytest.approx(((2 / 3 + 0) / 2 + 0) / 2)
    assert found.n == 2


# -- keywords ----------------------------------------------------------------------------------------------------------

TEXTS = ["The dog saw a dog.", "A cat saw the bird", "birds and 12 dogs", "cat cat 我"]


def naive_tfidf(documents: list[list[str]]) -> dict[str, float]:
    n = len(documents)
    terms = {term for document in documents for term in document}
    idf = {term: math.log((1 + n) / (1 + sum(term in document for document in documents))) + 1 for term in terms}
    means: Counter[str] = Counter()
    for document in documents:
        weights = {term: document.count(term) * idf[term] for term in set(document)}
        norm = math.sqrt(sum(weight**2 for weight in weights.values()))
        for term, weight in weights.items():
            means[term] += weight / norm / n
    return means


def test_keywords_equal_tfidf_by_its_formula() -> None:
    by_hand = naive_tfidf([["dog", "saw", "dog"], ["cat", "saw", "bird"], ["birds", "dogs"], ["cat", "cat"]])
    found = keywords(TEXTS)
    assert {one.term: one.weight for one in found} == pytest.approx(by_hand, rel=1e-9)
    assert [one.term for one in found] == sorted(by_hand, key=lambda term: (-round(by_hand[term], 9), term))
    assert [one.term for one in keywords(TEXTS, top=2)] == [one.term for one in found][:2] == ["cat", "dog"]


def test_a_single_text_has_its_counts_as_weights() -> None:
    # dog 2, cat 1: divided by √5.
    assert [(one.term, round(one.weight, 6)) for one in keywords(["dog cat dog"])] == [
        ("dog", round(2 / math.sqrt(5), 6)),
        ("cat", round(1 / math.sqrt(5), 6)),
    ]


def test_twenty_keywords_at_most() -> None:
    assert len(keywords([" ".join(f"word{place}" for place in range(30))])) == 20


def test_chinese_is_cut_into_words() -> None:
    assert segment("北京大学的学生").split() == ["北京大学", "的", "学生"]
    assert segment("plain text, as it is") == "plain text, as it is"
    found = [one.term for one in keywords(["北京大学的学生在学习编程。", "学生学习 Python"])]
    assert {"学生", "学习", "python", "编程"} <= set(found)
    assert "的" not in found


def test_texts_without_a_term_have_no_keywords() -> None:
    assert keywords([]) == keywords([""]) == keywords(["the of and", "42 1,000"]) == []


def test_hostile_texts_have_keywords_too() -> None:
    texts = ["\ud800 我 \udfff dog", "dog\x00cat", "<script>alert(1)</script>", "=cmd|' /C calc'!A0", "x" * 100_000]
    assert "dog" in [one.term for one in keywords(texts)]


# -- quality per cost --------------------------------------------------------------------------------------------------


def test_pareto_by_hand() -> None:
    #      cheap and bad, dear and good, dearer and no better, worse than the first, equal to the second
    costs, qualities = [1.0, 5.0, 6.0, 2.0, 5.0], [0.1, 0.9, 0.9, 0.05, 0.9]
    assert pareto(costs, qualities) == [True, True, False, False, True]
    assert pareto([1.0, 1.0], [0.5, 0.6]) == [False, True]
    assert pareto([1.0, None, 3.0, math.nan], [0.5, 0.9, None, 0.9]) == [True, None, None, None]
    assert pareto([], []) == []


def test_pareto_equals_its_definition() -> None:
    draw = random.Random(5)
    points = [(draw.randint(0, 6), draw.randint(0, 6)) for _ in range(40)]
    costs, qualities = [float(cost) for cost, _ in points], [float(quality) for _, quality in points]
    for (cost, quality), kept in zip(points, pareto(costs, qualities), strict=True):
        as_cheap = [other for other_cost, other in points if other_cost <= cost]
        cheaper = [other for other_cost, other in points if other_cost < cost]
        assert kept == (quality == max(as_cheap) and quality > max(cheaper, default=-1))
