"""Scripts that are written without spaces between words, so that their letters are counted instead."""

from __future__ import annotations

import re
import unicodedata

COUNTED_BY_CHARACTER = (
    "a word is a run of characters between spaces; of scripts without spaces (Han, kana, Thai, Lao, Khmer, Burmese) "
    "each letter counts as a word, with its marks"
)

# Hangul is spaced like English.
_HAN_AND_KANA = "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Blocks of the other scripts without spaces (Unicode's line breaking class SA), of Bopomofo and of half-width kana.
_BLOCKS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x3100, 0x312F),  # Bopomofo
    (0x31A0, 0x31BF),
    (0xA9E0, 0xA9FF),  # Burmese
    (0xAA60, 0xAADF),  # Burmese, Tai Viet
    (0xFF66, 0xFF9F),  # half-width kana
    (0x1B000, 0x1B16F),  # historic kana
)
_HALF_WIDTH_MARKS = "\uff9e\uff9f"  # what voices the kana before them


def _of_category(first: str) -> str:
    """The characters of the blocks whose Unicode category begins with a letter: L for letters, M for marks."""
    every = (chr(code) for start, stop in _BLOCKS for code in range(start, stop + 1))
    return "".join(one for one in every if unicodedata.category(one)[0] == first and one not in _HALF_WIDTH_MARKS)


_MARKED = f"[{_of_category('L')}][{_of_category('M')}{_HALF_WIDTH_MARKS}]*+"
HAN_OR_KANA = re.compile(f"[{_HAN_AND_KANA}]")
# Letters with their marks, of scripts whose words nothing here tells apart.
UNSEGMENTED = re.compile(_MARKED)
UNSPACED = re.compile(f"[{_HAN_AND_KANA}]|{_MARKED}")
