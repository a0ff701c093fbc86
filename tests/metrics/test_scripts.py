"""Scripts without spaces: lengths that differ, and n/a where a number would mean nothing."""

from __future__ import annotations

import unicodedata

import pytest

from align_bench.metrics.diversity import ngrams
from align_bench.metrics.keywords import keywords
from align_bench.metrics.length import count_words, split_words
from align_bench.metrics.readability import flesch_kincaid
from align_bench.metrics.scripts import COUNTED_BY_CHARACTER, HAN_OR_KANA, UNSEGMENTED, UNSPACED

# A short text and a longer one of each script; both were one word while they were split at spaces.
TEXTS = {
    "Thai": ("ดี", "อากาศวันนี้ดีมาก"),
    "Lao": ("ດີ", "ອາກາດມື້ນີ້ດີຫຼາຍ"),
    "Khmer": ("ល្អ", "ថ្ងៃនេះអាកាសធាតុល្អ"),
    "Burmese": ("ကောင်း", "ယနေ့ရာသီဥတုကောင်းသည်"),
    "half-width kana": ("ﾊｲ", "ｷｮｳﾊﾃﾝｷﾃﾞｽ"),
    "kana": ("はい", "きょうはてんきです"),
    "Han": ("好", "今天天气很好"),
    "Bopomofo": ("ㄏㄠ", "ㄐㄧㄣㄊㄧㄢ"),
}


@pytest.mark.parametrize("script", TEXTS)
def test_a_longer_text_has_more_words(script: str) -> None:
    short, long = TEXTS[script]
    assert count_words(short) < count_words(long) - 1
    assert count_words(f"{long} {long}") == 2 * count_words(long)


@pytest.mark.parametrize("script", TEXTS)
def test_readability_and_keywords_are_undefined(script: str) -> None:
    short, long = TEXTS[script]
    assert flesch_kincaid(long) is None
    if script not in ("Han", "kana"):  # Chinese is cut into words by its dictionary
        assert keywords([long, short]) == []


def test_letters_are_counted_with_their_marks() -> None:
    # Each Thai or Lao letter with the vowels and tones above and below it, as Unicode's categories tell them.
    for script in ("Thai", "Lao", "Khmer", "Burmese"):
        for text in TEXTS[script]:
            letters = sum(unicodedata.category(one)[0] == "L" for one in text)
            assert count_words(text) == letters
            assert "".join(split_words(text)) == text
    assert split_words("ｶﾞｽ") == ["ｶﾞ", "ｽ"]


def test_digits_and_other_words_stay_whole() -> None:
    assert split_words("ปี ๒๕๖๗, ราคา 3.50 THB") == ["ปี", "๒๕๖๗,", "ร", "า", "ค", "า", "3.50", "THB"]
    assert split_words("สวัสดีworld") == ["ส", "วั", "ส", "ดี", "world"]


def test_patterns_keep_apart_what_jieba_cuts() -> None:
    assert HAN_OR_KANA.search("カ")
    assert not HAN_OR_KANA.search("ดีｶﾞ")
    assert UNSEGMENTED.findall("好ดี") == ["ดี"]
    assert UNSPACED.findall("好ดี a") == ["好", "ดี"]
    assert not UNSPACED.search("한국어 Straße")


def test_a_few_letters_in_an_english_text_are_no_word_of_its_grade() -> None:
    english = "The weather is good today. People say that it stays so."
    assert flesch_kincaid(f"{english} ดีมาก") == flesch_kincaid(english)


def test_marks_count_in_repetition() -> None:
    assert ngrams("กี กา", 1) == [("กี",), ("ก",), ("า",)]


def test_how_words_are_counted_names_the_scripts() -> None:
    assert all(name in COUNTED_BY_CHARACTER for name in ("Han", "kana", "Thai", "Lao", "Khmer", "Burmese"))
