"""Words, grades, n-grams and keywords of a text, written from their documented rules."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np


def _unspaced(letter: str) -> bool:
    """Han and kana, which are written without spaces."""
    name = unicodedata.name(letter, "")
    return letter in "々〆〇" or name.startswith(("CJK UNIFIED", "CJK COMPATIBILITY IDEOGRAPH", "HIRAGANA", "KATAKANA"))


def said(text: str) -> str:
    """An answer after the thinking block that it begins with, whose opening tag may be in the prompt."""
    block = re.match(r"(?:\s*<think>)?((?:(?!<think>|</think>).)*)</think>\s*", text, re.DOTALL)
    if re.match(r"\s*<think>", text):
        return text.split("</think>", 1)[1].lstrip() if "</think>" in text else ""
    return text[block.end() :] if block else text


def words(text: str) -> list[str]:
    """Runs of non-space characters with a letter or digit; each Han or kana character is a word of its own."""
    spaced = "".join(f" {letter} " if _unspaced(letter) else letter for letter in text)
    return [word for word in spaced.split() if any(letter.isalnum() for letter in word)]


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """Every n words in a row, without case or marks at their ends."""
    bare = []
    for word in words(text):
        while not word[0].isalnum():
            word = word[1:]
        while not word[-1].isalnum():
            word = word[:-1]
        bare.append(word.casefold())
    return [tuple(bare[start : start + n]) for start in range(len(bare) - n + 1)]


def distinct(texts: Sequence[str], n: int) -> tuple[float | None, int]:
    grams = [gram for text in texts for gram in ngrams(text, n)]
    return (len(set(grams)) / len(grams) if grams else None), len(grams)


def repetition(text: str) -> float | None:
    grams = ngrams(text, 4)
    return 1 - len(set(grams)) / len(grams) if grams else None


def flesch_kincaid(text: str) -> float | None:
    """0.39 · words / sentences + 11.8 · syllables / words − 15.59, once Markdown is stripped."""
    sentences = [own for sentence in _sentences(text) if (own := _spoken(sentence))]
    letters = [letter for sentence in _sentences(text) for letter in sentence if letter.isalpha()]
    latin = sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    every = [word for sentence in sentences for word in sentence]
    if not every or 2 * latin <= len(letters):
        return None
    syllables = sum(_syllables(word) for word in every)
    return 0.39 * len(every) / len(sentences) + 11.8 * syllables / len(every) - 15.59


def _spoken(sentence: str) -> list[str]:
    return [word for word in sentence.split() if any(letter.isalpha() for letter in word)]


def _sentences(text: str) -> list[str]:
    """Sentences of what a reader sees: no code, tags, targets or marks; headings, items and paragraphs end one."""
    parts: list[str] = [""]
    fenced = False
    for line in text.split("\n"):
        if line.lstrip(" ").startswith(("```", "~~~")):
            fenced = not fenced
            parts.append("")
            continue
        if fenced:
            continue
        item = re.match(r"^[ \t>]*(?:[-*+]|\d{1,3}[.)]|#{1,6})[ \t]+(.*)$", line)
        if not line.strip() or re.fullmatch(r"[ \t|:=_*-]+", line):
            parts.append("")
        elif item:
            parts += [item.group(1), ""]
        else:
            parts[-1] += "\n" + line.lstrip("> \t")
    plain = []
    for part in parts:
        part = re.sub(r"!?\[([^\[\]]*)\]\([^)]*\)", r"\1", part)
        part = re.sub(r"https?://\S+", " ", re.sub(r"</?[A-Za-z][^<>]*>", " ", part))
        plain.append(re.sub(r"[*`~|]|\b_+|_+\b", "", part))
    return [sentence for part in plain for sentence in re.split(r"[.!?…]+[\"'”’)\]]*(?:\s+|$)", part)]


@cache
def _syllables(word: str) -> int:
    parts = ["".join(letter for letter in part if letter.isalpha()).lower() for part in re.split("[-–—/]", word)]
    return max(1, sum(len(_hyphenation().positions(part)) + 1 for part in parts if part))


@lru_cache(maxsize=1)
def _hyphenation() -> Any:
    import pyphen

    return pyphen.Pyphen(lang="en_US")


def keywords(texts: Sequence[str], top: int = 20) -> list[tuple[str, float]]:
    """Terms by mean TF-IDF: counts × (ln((1 + n) / (1 + texts with the term)) + 1), each text scaled to length 1."""
    counts = [Counter(_terms(text)) for text in texts]
    containing = Counter(term for own in counts for term in own)
    terms = sorted(containing)
    if not terms:
        return []
    place = {term: number for number, term in enumerate(terms)}
    rarity = np.log((1 + len(texts)) / (1 + np.array([containing[term] for term in terms]))) + 1
    total = np.zeros(len(terms))
    for own in counts:
        weights = np.zeros(len(terms))
        for term, count in own.items():
            weights[place[term]] = count
        weights *= rarity
        if weights.any():
            total += weights / np.sqrt((weights**2).sum())
    means = total / len(texts)
    best = sorted(range(len(terms)), key=lambda number: (-means[number], terms[number]))[:top]
    return [(terms[number], float(means[number])) for number in best]


def _terms(text: str) -> list[str]:
    """Words of two or more letters, digits or underscores with a letter in them; Chinese is cut into words by jieba."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    text = text.lower()
    if any(map(_unspaced, text)):
        import rjieba

        text = " ".join(rjieba.cut(text))
    runs = re.findall(r"\w+", text)
    return [
        run
        for run in runs
        if len(run) > 1 and any(letter.isalpha() for letter in run) and run not in ENGLISH_STOP_WORDS
    ]
