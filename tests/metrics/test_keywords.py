"""Keywords against TF-IDF by its formula, and of texts that have none."""

from __future__ import annotations

import math
import random
import re
from collections import defaultdict

import pytest

from align_bench.metrics.keywords import keywords, segment
from align_bench.metrics.scripts import UNSEGMENTED

TEXTS = ["The dog saw a dog.", "A cat saw the bird", "birds and 12 dogs", "cat cat 我"]


def naive_tfidf(documents: list[list[str]]) -> dict[str, float]:
    n = len(documents)
    terms = {term for document in documents for term in document}
    idf = {term: math.log((1 + n) / (1 + sum(term in document for document in documents))) + 1 for term in terms}
    means: defaultdict[str, float] = defaultdict(float)
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


def test_nothing_of_plain_english_is_cut_or_left_out() -> None:
    every = "".join(map(chr, range(128)))
    assert segment(UNSEGMENTED.sub(" ", every)) == every


def test_terms_are_the_words_with_a_letter() -> None:
    rng = random.Random(0)
    texts = ["".join(rng.choices("ab1_é² ,-\n", k=12)) for _ in range(300)]
    expected = {
        word
        for text in texts
        for word in re.findall(r"\b\w\w+\b", text)
        if any(letter.isalnum() and not letter.isdecimal() for letter in word)
    }
    assert {one.term for one in keywords(texts, top=10_000)} == expected


def test_texts_without_a_term_have_no_keywords() -> None:
    assert keywords([]) == keywords([""]) == keywords(["the of and", "42 1,000"]) == []


def test_hostile_texts_have_keywords_too() -> None:
    texts = ["\ud800 我 \udfff dog", "dog\x00cat", "<script>alert(1)</script>", "=cmd|' /C calc'!A0", "x" * 100_000]
    assert "dog" in [one.term for one in keywords(texts)]
