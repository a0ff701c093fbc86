"""The words that set texts apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from align_bench.metrics.scripts import HAN_OR_KANA, UNSEGMENTED

TOP = 20
SEGMENTATION = (
    "words of two or more letters; Chinese cut into words by jieba (rjieba), one-character words left out; "
    "Thai, Lao, Khmer, Burmese and half-width kana, which nothing here cuts into words, left out"
)


@dataclass(frozen=True, slots=True)
class Keyword:
    """A term and its mean TF-IDF weight over the texts."""

    term: str
    weight: float


def keywords(texts: Sequence[str], top: int = TOP) -> list[Keyword]:
    """The terms with the highest mean TF-IDF over the texts, highest first; equal ones in alphabetical order.

    scikit-learn's `TfidfVectorizer` with its defaults, fitted on these texts alone: term counts × (ln((1 + n) /
    (1 + texts with the term)) + 1), each text scaled to length 1; lower case, English stop words left out. Numbers
    without any letter are no terms.

    Chinese is first cut into words (jieba's dictionary, without network); words of one character, among them nearly
    all particles, are left out as letters are. Thai, Lao, Khmer, Burmese and the like are left out: their words stand
    in dictionaries only.

    Returns:
        At most `top` keywords; none without a term.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        preprocessor=_in_words,
        stop_words="english",
        token_pattern=r"(?u)\b(?=\w*[^\W\d_])\w\w+",  # to the word's end: to ask for that would double its time
    )
    try:
        weights = vectorizer.fit_transform(texts)
    except ValueError as error:
        if "empty vocabulary" in str(error):
            return []
        raise
    means = np.asarray(weights.mean(axis=0)).ravel()
    terms = vectorizer.get_feature_names_out()
    best = np.lexsort((terms, -means))[:top]
    return [Keyword(str(terms[place]), float(means[place])) for place in best]


def _in_words(text: str) -> str:
    """The text in lower case as the vectorizer finds words in it."""
    lower = text.lower()
    return lower if lower.isascii() else segment(UNSEGMENTED.sub(" ", lower))


def segment(text: str) -> str:
    """The text with spaces between the words of its Chinese parts; other text as it is.

    >>> segment("北京大学的学生, PPO!")
    '北京大学 的 学生 ,   PPO !'
    """
    if not HAN_OR_KANA.search(text):
        return text
    import rjieba

    return " ".join(rjieba.cut(text.encode("utf-8", "replace").decode()))  # a lone surrogate has no UTF-8
