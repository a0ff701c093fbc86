"""What became of a data set's rows, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from align_bench.records import Facts


def describe_counts(facts: Facts) -> str | None:
    """What became of a data set's rows, as one sentence; None for facts of another kind.

    >>> describe_counts({"shape": "pairs", "read": {"read": 1000, "kept": 999, "dropped: equal answers": 1},
    ...                  "tokens": {"kept": 999, "truncated": 0}})
    '1,000 rows read (pairs), 1 dropped: equal answers, 999 kept'
    """
    if not {"shape", "read", "tokens"} <= facts.keys():
        return None
    read, tokens = (cast("Mapping[str, int]", facts[step]) for step in ("read", "tokens"))
    parts = [f"{read['read']:,} rows read ({facts['shape']})"]
    parts += [f"{count:,} {reason}" for reason, count in read.items() if reason not in ("read", "kept")]
    parts += [f"{count:,} {reason}" for reason, count in tokens.items() if count]
    unread = cast("Sequence[str]", facts.get("unread", ()))
    return ", ".join(parts) + (f"; not read: {', '.join(unread)}" if unread else "")
