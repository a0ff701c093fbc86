"""What became of a data set's rows, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def counts_in_words(facts: Mapping[str, Any]) -> str | None:
    """What became of a data set's rows, as one sentence; None for facts of another kind.

    >>> counts_in_words({"shape": "pairs", "read": {"read": 1000, "kept": 999, "dropped: equal answers": 1},
    ...                  "tokens": {"kept": 999, "truncated": 0}})
    '1,000 rows read (pairs), 1 dropped: equal answers, 999 kept'
    """
    if not {"shape", "read", "tokens"} <= facts.keys():
        return None
    parts = [f"{facts['read']['read']:,} rows read ({facts['shape']})"]
    parts += [f"{count:,} {reason}" for reason, count in facts["read"].items() if reason not in ("read", "kept")]
    parts += [f"{count:,} {reason}" for reason, count in facts["tokens"].items() if count]
    return ", ".join(parts)
