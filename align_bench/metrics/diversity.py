"""How varied answers are: across all of them, and within each."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from align_bench.metrics.length import split_words
from align_bench.metrics.mean import mean
from align_bench.metrics.scripts import UNSEGMENTED
from align_bench.records import Estimate

REPEATED = 4
_MOST = 2**62  # of a number that stands for an n-gram
_Ids = npt.NDArray[np.int64]


def distinct(texts: Sequence[str], sizes: Sequence[int]) -> list[Estimate]:
    """Distinct-n for each n: different n-grams of all answers together, divided by all their n-grams.

    No n-gram spans two answers. It falls as the amount of text grows, so compare it beside the answers' length; and it
    has no interval, since a resample repeats answers and with them their n-grams.

    Source: Li et al. 2016, arXiv:1510.03055, section 5.2, where n is 1 and 2.

    Args:
        texts: the answers.
        sizes: each n, words in a row.

    Returns:
        For each n the share, `n` counting n-grams; None without any n-gram.
    """
    words, answer = _numbered(texts)
    found = [_grams(words, answer, size) for size in sizes]
    return [Estimate(len(np.unique(grams)) / len(grams) if len(grams) else None, n=len(grams)) for grams in found]


def _numbered(texts: Sequence[str]) -> tuple[_Ids, _Ids]:
    """All words as numbers, equal ones as the same, and of each the number of its answer."""
    numbers: dict[str, int] = {}
    words, lengths = array("q"), array("q")
    for text in texts:
        own = _words(text)
        words.extend([numbers.setdefault(word, len(numbers)) for word in own])
        lengths.append(len(own))
    each = np.frombuffer(words, dtype=np.int64) if words else np.empty(0, dtype=np.int64)
    return each, np.repeat(np.arange(len(lengths)), lengths)


def _grams(words: _Ids, answer: _Ids, n: int) -> _Ids:
    """All n-grams as numbers, equal ones as the same: eight bytes each, where tuples of words would take ten times."""
    different = int(words.max(initial=-1)) + 1
    grams, starts = words, max(0, len(words) - n + 1)
    for further in range(1, n):
        if different * (int(grams.max(initial=0)) + 1) > _MOST:
            grams = np.unique(grams, return_inverse=True)[1]
        grams = grams[: len(words) - further] * different + words[further:]
    within: _Ids = grams[:starts][answer[:starts] == answer[len(words) - starts :]]
    return within


def repetition(text: str, n: int = REPEATED) -> float | None:
    """Share of an answer's n-grams that it has said before: `1 − different n-grams / n-grams`.

    Source: seq-rep-n of Welleck et al. 2020, arXiv:1908.04319, section 6.1, where n is 4.
    Differs from the source: of words instead of tokens, so that it is the same for every tokenizer.

    Returns:
        The share; None for an answer of fewer than n words.
    """
    grams = ngrams(text, n)
    return 1 - len(set(grams)) / len(grams) if grams else None


def mean_repetition(texts: Sequence[str], prompts: Sequence[Hashable] | None = None) -> Estimate:
    """Mean share of repeated 4-grams an answer, with Student's 95% interval; `n` counts those that have a 4-gram.

    Args:
        texts: the answers.
        prompts: the prompt of each answer, whose samples are averaged first; None when each has its own.
    """
    return mean([repetition(text) for text in texts], prompts)


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """Every n words in a row; their case, and marks at their ends, do not count.

    >>> ngrams("The cat. The CAT!", 2)
    [('the', 'cat'), ('cat', 'the'), ('the', 'cat')]
    """
    words = _words(text)
    return list(zip(*(words[start:] for start in range(n)), strict=False))


@lru_cache(maxsize=2**14)  # the answers of a cell, which are asked for n-grams of several n
def _words(text: str) -> tuple[str, ...]:
    return tuple(_bare(word) for word in split_words(text))


@lru_cache(maxsize=2**16)  # of a language's words few are new
def _bare(word: str) -> str:
    if UNSEGMENTED.fullmatch(word):  # its marks are a part of the letter
        return word
    letters = [place for place, letter in enumerate(word) if letter.isalnum()]
    return word[letters[0] : letters[-1] + 1].casefold()
