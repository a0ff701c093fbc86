from __future__ import annotations

import random
import re
import statistics
import time

import pytest

from align_bench.metrics.length import count_words
from align_bench.metrics.readability import (
    _MARKS,
    _SENTENCE_END,
    count_syllables,
    flesch_kincaid,
    mean_grade,
    strip_markdown,
)


def test_flesch_kincaid_by_hand() -> None:
    # 9 words, 2 sentences; only "happy" is hyphenated (hap-py): 10 syllables.
    by_hand = 0.39 * 9 / 2 + 11.8 * 10 / 9 - 15.59
    assert flesch_kincaid("The cat sat on the mat. It was happy.") == pytest.approx(by_hand, rel=1e-12)


def test_longer_sentences_and_longer_words_read_harder() -> None:
    short = flesch_kincaid("The cat sat. The cat ran.")
    assert short is not None
    assert short < (flesch_kincaid("The cat sat the cat ran.") or 0)
    assert short < (flesch_kincaid("The hippopotamus sat. The hippopotamus ran.") or 0)


def test_markdown_does_not_change_the_grade() -> None:
    plain = "Good reasons.\nThe first reason is here.\nThe second is there."
    marked = (
        "## Good reasons\n\n- The **first** [reason](https://a.example/x_y) is `here`\n"
        "- The _second_ is there\n\n```python\nimport incomprehensibilities\n```\n"
    )
    assert flesch_kincaid(marked) == pytest.approx(flesch_kincaid(plain) or 0, rel=1e-12)
    assert "import" not in strip_markdown(marked)
    assert "example" not in strip_markdown(marked)


@pytest.mark.parametrize(
    "text", ["", " \n", "42", "...", "```\ncode only\n```", "我爱编程。", "Это предложение.", "こんにちは"]
)
def test_readability_is_undefined_without_latin_words(text: str) -> None:
    assert flesch_kincaid(text) is None


def test_mean_grade_counts_only_valid_answers() -> None:
    grades = [flesch_kincaid("It was happy."), flesch_kincaid("The understanding of everything was necessary.")]
    found = mean_grade(["It was happy.", "42", "The understanding of everything was necessary.", "我"])
    assert found.n == 2
    assert found.value == pytest.approx(statistics.mean(grade for grade in grades if grade is not None))
    assert mean_grade(["42"]).value is None


def test_count_syllables() -> None:
    assert [count_syllables(word) for word in ("cat", "happy", "well-being", "understanding", "don't")] == [
        1,
        2,
        3,
        4,
        1,
    ]


def test_marks_and_ends_of_sentences_are_those_of_the_plain_patterns() -> None:
    marks = re.compile(r"[*`~|]|(?<!\w)_++|(?<!_)_++(?!\w)")
    ends = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’)\]]*+(?:\s++|$)")
    rng = random.Random(0)
    for _ in range(20_000):
        text = "".join(rng.choices('_aé *`.!… \n")', k=rng.randint(0, 9)))
        assert _MARKS.sub("", text) == marks.sub("", text)
        assert _SENTENCE_END.split(text) == ends.split(text)


def test_hostile_text_takes_no_time() -> None:
    text = "[" * 20_000 + "<a" * 20_000 + "\n```" * 2_000 + "_" * 20_000 + "![" * 10_000 + " \n" * 20_000 + "# " * 5_000
    started = time.perf_counter()
    flesch_kincaid(text)
    count_words(text)
    assert time.perf_counter() - started < 5
