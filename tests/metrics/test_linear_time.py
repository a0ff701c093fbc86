"""Text metrics take time that grows with the length of a text, whatever it holds, and say what they said before."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from align_bench.judge.edits import append_filler, double_last_paragraph, strip_marks
from align_bench.metrics.bold import bold_spans
from align_bench.metrics.diversity import repetition
from align_bench.metrics.format_effects import features
from align_bench.metrics.keywords import keywords
from align_bench.metrics.length import split_words
from align_bench.metrics.readability import count_syllables, flesch_kincaid, strip_markdown

METRICS: dict[str, Callable[[str], object]] = {
    "words": split_words,
    "readability": flesch_kincaid,
    "form": features,
    "keywords": lambda text: keywords([text]),
    "repetition": repetition,
    "filler": append_filler,
    "doubled": double_last_paragraph,
    "stripped": strip_marks,
}
# Start, what is repeated, end. Each repeats something that a search could begin at, and that nothing ends.
TEXTS = {
    "open link": ("![p](data:image/png;base64,", "A", ""),
    "link with blanks": ("[p](", "a ", ""),
    "dots": ("", ".", "x"),
    "dots and quotes": ("", '."', "x"),
    "underscores": ("a", "_", "b"),
    "blanks": ("", " ", "x"),
    "line breaks": ("", "\n", "x"),
    "blank lines": ("", "\n \n", "x"),
    "brackets": ("", "[", ""),
    "open links": ("", "[a](", ""),
    "tags": ("", "<a", ""),
    "hashes": ("", "#", ""),
    "pipes": ("", "|", "x"),
    "bold that stays open": ("", " **a", ""),
    "the same with underscores": ("", " __a", ""),
    "italics that stay open": ("", " *a", ""),
    "code that stays open": ("", "`a ", ""),
    "fences": ("", "```\n", ""),
    "a fence of ticks": ("```\n", "`", "x"),
    "a word": ("", "a", ""),
    "dashes": ("a", "-", "b"),
    "combining marks": ("a", "\u0301", ""),
    "digits": ("", "1", "x"),
    "Han": ("", "我爱", ""),
    "Thai": ("", "ดี", ""),
    "one Thai letter with many marks": ("ก", "\u0e35", ""),
}


def made(parts: tuple[str, str, str], length: int) -> str:
    start, unit, end = parts
    return f"{start}{(unit * (length // len(unit) + 1))[:length]}{end}"


def seconds(metric: Callable[[str], object], text: str, times: int = 2) -> float:
    """CPU time, the least of several: a busy machine adds to it and takes nothing away."""
    found = []
    for _ in range(times):
        count_syllables.cache_clear()
        began = time.process_time()
        metric(text)
        found.append(time.process_time() - began)
    return min(found)


def grows_with_length(metric: Callable[[str], object], parts: tuple[str, str, str]) -> bool:
    """Four times the text takes less than ten times as long; a square would take sixteen times."""
    whole = seconds(metric, made(parts, 40_000))
    return whole < 0.2 or whole < 10 * seconds(metric, made(parts, 10_000))


@pytest.mark.parametrize("name", METRICS)
def test_two_hundred_thousand_characters_take_less_than_a_second(name: str) -> None:
    METRICS[name]("warm, for what is imported")
    for kind, parts in TEXTS.items():
        assert grows_with_length(METRICS[name], parts), kind  # first, since a square would take minutes below
        assert seconds(METRICS[name], made(parts, 200_000), times=1) < 3, kind  # a third of it here


MARKS = "[]()!*_`~.?\"'<>#-+|> \n\t:=ax1/é"


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(start=st.text(MARKS, max_size=4), unit=st.text(MARKS, min_size=1, max_size=6), end=st.text(MARKS, max_size=2))
def test_any_repeated_text_takes_time_that_grows_with_it(start: str, unit: str, end: str) -> None:
    for name in ("words", "readability", "form", "stripped"):
        assert grows_with_length(METRICS[name], (start, unit, end)), name


# The definitions as they read best, in patterns that take the square of the time.
BOLD = r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1"
LINK = re.compile(r"!?\[([^\[\]\n]*)\]\([^()\s]*[^()\n]*\)")
MARKED = re.compile(r"[*`~|]|(?<!\w)_+|_+(?!\w)")
SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?:\s+|$)")


@settings(max_examples=2000, deadline=None, derandomize=True)
@given(st.text("*_ \nab.", max_size=30))
def test_bold_is_what_the_pattern_finds(text: str) -> None:
    plain, across = re.compile(BOLD), re.compile(BOLD, re.DOTALL)
    assert features(text).bold == len(plain.findall(text))
    assert list(bold_spans(text)) == [found.span(2) for found in across.finditer(text)]


@settings(max_examples=2000, deadline=None, derandomize=True)
@given(st.text("[]()!_.?\"' \nab*", max_size=30))
def test_patterns_of_readability_find_the_same(text: str) -> None:
    from align_bench.metrics import readability

    assert readability._LINK.sub(r"<\1>", text) == LINK.sub(r"<\1>", text)
    assert readability._MARKS.sub("·", text) == MARKED.sub("·", text)
    assert readability._SENTENCE_END.split(text) == SENTENCE_END.split(text)


def test_marks_go_and_words_stay() -> None:
    assert strip_marks("**a** and __b c__, **open") == "a and b c, **open"
    assert strip_markdown("[a](b c) _d_ e_f __g") == "a d e_f g"


def test_data_that_nobody_can_read_is_no_word_of_its_own_length() -> None:
    assert count_syllables("a" * 10_000) == 1 + _points("a" * 10_000)
    whole, doubled = count_syllables("hyphenation" * 900), count_syllables("hyphenation" * 1800)
    assert doubled == pytest.approx(2 * whole, rel=0.1)


def _points(letters: str) -> int:
    import pyphen

    return len(pyphen.Pyphen(lang="en_US").positions(letters))
