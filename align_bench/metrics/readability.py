"""How hard answers are to read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Sequence
from functools import cache, lru_cache
from typing import Any

from align_bench.metrics.mean import mean
from align_bench.metrics.scripts import UNSEGMENTED
from align_bench.metrics.thinking import without_thinking
from align_bench.records import Estimate

_CODE = re.compile(r"^ {0,3}(```|~~~).*?(?:^ {0,3}\1[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
# Possessive, and from the first of equal marks only: a search from each of many open marks would take their square.
_LINK = re.compile(r"!?\[([^\[\]\n]*+)\]\([^()\n]*+\)")
_TAG = re.compile(r"</?[A-Za-z][^<>\n]*>")
_URL = re.compile(r"https?://\S+")
_ITEM = re.compile(r"^[ \t>]*(?:[-*+]|\d{1,3}[.)]|#{1,6})[ \t]+(.*)$")
_RULE = re.compile(r"^[ \t|:=_*-]+$")
# Both begin with a character, not with what may not stand before it: re looks for that one, ten times as fast.
_MARKS = re.compile(r"\*|`|~|\||_(?<!\w_)_*+|_(?<!__)_*+(?!\w)")
_SENTENCE_END = re.compile(r"[.!?…](?<![.!?…]{2})[.!?…]*+[\"'”’)\]]*+(?:\s++|$)")
_READABLE_LETTERS = 10_000


@lru_cache(maxsize=2**17)  # a report's figures ask for them once more
def flesch_kincaid(text: str) -> float | None:
    """Flesch–Kincaid grade: US school years needed to read the text.

    `0.39 · words / sentences + 11.8 · syllables / words − 15.59`, unrounded; below 0 for very plain text.

    A thinking block is left out, and Markdown is stripped: fenced code, link targets, tags and marks go, and a
    heading, list item or paragraph ends a sentence. A word is a run of non-space characters with a letter in it;
    letters of Thai, Lao, Khmer, Burmese and the like are none. None without such a word, and where most letters are not
    Latin (CJK, Cyrillic …), for which the formula means nothing.

    Syllables are the hyphenation points of pyphen's en_US patterns plus one, as in textstat: low for words like
    "area", but equally for every method. textstat itself is not used: 0.7.4 imports `pkg_resources`, which current
    setuptools no longer has, later ones download a corpus, and all of them round the two ratios.

    Source: Kincaid et al. 1975, "Derivation of new readability formulas", Navy Research Branch Report 8-75.
    """
    plain = strip_markdown(without_thinking(text))
    if not _is_latin(plain):
        return None
    spaced = plain if plain.isascii() else UNSEGMENTED.sub(" ", plain)
    sentences = [words for part in _SENTENCE_END.split(spaced) if (words := _words(part))]
    words = [word for sentence in sentences for word in sentence]
    if not words:
        return None
    syllables = sum(map(count_syllables, words))
    return 0.39 * len(words) / len(sentences) + 11.8 * syllables / len(words) - 15.59


def mean_grade(texts: Sequence[str], prompts: Sequence[Hashable] | None = None) -> Estimate:
    """Mean Flesch–Kincaid grade with Student's 95% interval; `n` counts valid answers, or prompts with one.

    Args:
        texts: the answers.
        prompts: the prompt of each answer, whose samples are averaged first; None when each has its own.
    """
    return mean([flesch_kincaid(text) for text in texts], prompts)


def strip_markdown(text: str) -> str:
    """The words a reader sees: no code blocks, link targets, tags or marks; a heading or item ends a sentence."""
    text = _CODE.sub("\n\n", text)
    text = _URL.sub(" ", _TAG.sub(" ", _LINK.sub(r"\1", text)))
    lines = [_plain_line(line) for line in text.splitlines()]
    return re.sub(r"\n\s*\n", ".\n", _MARKS.sub("", "\n".join(lines)))


@lru_cache(maxsize=65_536)
def count_syllables(word: str) -> int:
    """Syllables of one English word: hyphenation points plus one, for each part of a hyphenated word; at least 1."""
    parts = ["".join(filter(str.isalpha, part)).lower() for part in re.split(r"[-–—/]", word)]
    return max(1, sum(map(_syllables, filter(None, parts))))


def _syllables(letters: str) -> int:
    """Those of a word's first letters tell enough of one that nobody can read, such as data in base 64."""
    known = letters[:_READABLE_LETTERS]
    found: int = len(_hyphenation().positions(known)) + 1
    return found * len(letters) // len(known)


def _plain_line(line: str) -> str:
    if _RULE.match(line):
        return ""
    item = _ITEM.match(line)
    return f"\n\n{item.group(1)}\n\n" if item else line.lstrip("> \t")


def _words(text: str) -> list[str]:
    return [word for word in text.split() if word[0].isalpha() or any(map(str.isalpha, word))]


def _is_latin(text: str) -> bool:
    if text.isascii():
        return any(map(str.isalpha, text))
    letters = [letter for letter in text if letter.isalpha()]
    latin = sum(letter.isascii() or unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    return 2 * latin > len(letters)


@cache
def _hyphenation() -> Any:
    import pyphen

    return pyphen.Pyphen(lang="en_US")
