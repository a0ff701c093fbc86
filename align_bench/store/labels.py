"""Names of cells as parts of folder names: readable, and safe on every file system."""

from __future__ import annotations

import unicodedata

_LONGEST = 60  # characters
_LONGEST_BYTES = 180  # of UTF-8; a key comes after them, and file systems end names at 255
_KEPT = "_=+.,"
_UNNAMED = "unnamed"


def safe_label(label: str) -> str:
    """A label for people, to be put before a key that tells artefacts apart; labels may coincide.

    Args:
        label: any text, such as the id of a cell.

    Returns:
        Letters, digits and few signs; other characters become hyphens.

    >>> safe_label("rm[learning_rate=1e-05]#1")
    'rm-learning_rate=1e-05-1'
    """
    text = unicodedata.normalize("NFC", label)
    parts = "".join(one if _is_kept(one) else " " for one in text).split()
    short = "-".join(parts)[:_LONGEST].encode()[:_LONGEST_BYTES].decode(errors="ignore")
    return short.strip("-.,") or _UNNAMED


def _is_kept(character: str) -> bool:
    # Marks are a part of the letters before them in many scripts.
    return character in _KEPT or unicodedata.category(character)[0] in "LMN"
