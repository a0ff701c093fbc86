"""The gold judge: a programmatic check, where the data knows its right answers."""

from __future__ import annotations

from align_bench.data.planted import is_right
from align_bench.records import Preference


def gold_score(preference: Preference, text: str) -> float | None:
    """1 when the text claims the gold answer first, 0 when not, None when the row has no gold answer."""
    if preference.gold is None:
        return None
    return float(is_right(text, preference.gold, preference.candidates))
