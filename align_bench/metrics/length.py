"""How long answers are."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache

from align_bench.metrics.mean import mean
from align_bench.metrics.scripts import UNSPACED
from align_bench.metrics.thinking import without_thinking
from align_bench.records import Estimate


def split_words(text: str) -> list[str]:
    """The words of a text in order; a letter of a script without spaces is one word.

    These are Han, kana, Thai, Lao, Khmer, Burmese and the like: their words stand in dictionaries only, and counts of
    letters can be compared all the same. Elsewhere a word is a run of non-space characters with at least one letter or
    digit: `don't` and `3.14` are one, `-` is none.

    >>> split_words("I love 编程, don't you?")
    ['I', 'love', '编', '程', "don't", 'you?']
    >>> split_words("วันนี้ 3 ｶﾞｽ")
    ['วั', 'น', 'นี้', '3', 'ｶﾞ', 'ｽ']
    """
    # Looking for these letters takes most of the time, and plain English has none.
    spaced = text if text.isascii() else UNSPACED.sub(r" \g<0> ", text)
    return [word for word in spaced.split() if word[0].isalnum() or any(map(str.isalnum, word))]


@lru_cache(maxsize=2**17)  # reports count the same answers again and again
def count_words(text: str) -> int:
    """Words of a text, as `split_words` finds them; those of a thinking block do not count."""
    return len(split_words(without_thinking(text)))


def mean_words(texts: Sequence[str], prompts: Sequence[Hashable] | None = None) -> Estimate:
    """Mean words an answer, with Student's 95% interval.

    Args:
        texts: the answers.
        prompts: the prompt of each answer, whose samples are averaged first; None when each has its own.
    """
    return mean([count_words(text) for text in texts], prompts)


def mean_characters(texts: Sequence[str], prompts: Sequence[Hashable] | None = None) -> Estimate:
    """Mean characters (Unicode code points, spaces included) an answer, with Student's 95% interval.

    Args:
        texts: the answers; their thinking blocks do not count.
        prompts: the prompt of each answer, whose samples are averaged first; None when each has its own.
    """
    return mean([len(without_thinking(text)) for text in texts], prompts)
