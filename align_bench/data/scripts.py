"""The scripts that texts are written in, by the names of their characters."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

_NAMES = {"CJK": "Han", "HANGUL": "Korean", "HIRAGANA": "kana", "KATAKANA": "kana", "IDEOGRAPHIC": "Han"}
_WIDTHS = ("FULLWIDTH", "HALFWIDTH")
NONE = "no letters"


def script_of(texts: Iterable[str]) -> str:
    """The script of most letters of some texts; Han and kana together are Japanese.

    >>> script_of(["Привет, world!", "как дела?"]), script_of(["編集する"]), script_of(["1 + 1 = ?"])
    ('Cyrillic', 'Japanese', 'no letters')
    """
    letters: Counter[str] = Counter()
    for text in texts:
        if text.isascii():
            letters["Latin"] += sum(map(str.isalpha, set(text))) and len(text)
        else:
            for char, count in Counter(text).items():
                if (script := _script(char)) is not None:
                    letters[script] += count
    if letters["kana"]:
        letters["Japanese"] = letters.pop("kana") + letters.pop("Han", 0)
    most = max(letters, key=lambda script: letters[script], default=NONE)
    return most if letters[most] else NONE


@lru_cache(maxsize=2**16)
def _script(char: str) -> str | None:
    if not char.isalpha():
        return None
    first, *others = unicodedata.name(char, "OTHER").split()
    name = others[0] if first in _WIDTHS and others else first.partition("-")[0]
    return _NAMES.get(name, name.capitalize())
