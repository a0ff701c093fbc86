"""Lengths and readability are of what an answer says, not of what it thinks before."""

from __future__ import annotations

import time

import pytest

from align_bench.metrics.length import count_words, mean_characters
from align_bench.metrics.readability import flesch_kincaid
from align_bench.metrics.thinking import without_thinking

SAID = "The cat sat on the mat. It was warm there."
THOUGHT = "Unquestionably incomprehensible deliberations. "


@pytest.mark.parametrize(
    "text",
    [
        f"<think>\n{THOUGHT * 3}\n</think>\n\n{SAID}",
        f"\n<think></think>{SAID}",
        f"{THOUGHT}</think>\n{SAID}",  # opened by the prompt
    ],
)
def test_a_thinking_block_counts_nowhere(text: str) -> None:
    assert without_thinking(text) == SAID
    assert count_words(text) == count_words(SAID) == 10
    assert mean_characters([text]).value == len(SAID)
    assert flesch_kincaid(text) == flesch_kincaid(SAID)


def test_an_answer_that_never_stops_thinking_says_nothing() -> None:
    assert count_words(f"<think>\n{THOUGHT}") == 0
    assert flesch_kincaid(f"<think>\n{THOUGHT}") is None


@pytest.mark.parametrize("text", [SAID, "Write <think> and then </think>.", "Close it.", " a <think> b", ""])
def test_other_texts_are_as_they_are(text: str) -> None:
    assert without_thinking(text) == text


def test_it_takes_linear_time() -> None:
    began = time.perf_counter()
    for text in ("<think>" * 30_000, " " * 200_000, "</think>" * 30_000, "<" * 200_000):
        without_thinking(text)
    assert time.perf_counter() - began < 1
