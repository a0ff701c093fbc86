"""Rows that cannot be used: under which reason they are dropped, how many may be, and what mends it."""

from __future__ import annotations

from collections.abc import Mapping

from align_bench.errors import DataError

REFUSED = "refused by the chat template"
REMOVED = "answers differ only in what the chat template removes"
AROUND = "the chat template does not write the answer after its prompt"
NO_PROMPT = "the chat template writes no prompt"

_PREFIX = "dropped: "
_ADVICE = {
    REFUSED: "leave such rows out, or use a base whose chat template takes these turns",
    REMOVED: "use a base whose chat template keeps what they differ in (such as the text before </think>), or pairs "
    "that differ in the rest",
    AROUND: "use a base whose chat template writes the same turns with and without an answer, or change what it reads "
    "with `chat_template_kwargs`",
    NO_PROMPT: "use a base whose chat template writes the user's text",
    "longer than": "raise `train.max_length`, or set `too_long: truncate`",
    "prompt leaves no room": "raise `train.max_length`",
    "equal answers after truncation": "raise `train.max_length`",
    "equal answers as tokens": "use pairs whose answers the base's tokenizer can tell apart",
}
_BY_TEMPLATE = (REFUSED, REMOVED, AROUND, NO_PROMPT)
_MEANT = ("tie", "equal answers")  # dropped since the data say so, not since they cannot be read


class UnusableRowError(Exception):
    """A row cannot be used; its text is the reason that is counted."""


def advice(reason: str) -> str:
    """What mends a reason for which rows are dropped."""
    return next((words for start, words in _ADVICE.items() if reason.startswith(start)), "look at these rows")


def check_dropped(
    where: str, read: Mapping[str, int], tokens: Mapping[str, int], examples: Mapping[str, int], *, most: float
) -> None:
    """Refuse rows of which too many are dropped, when they are read or by the chat template.

    Rows that are dropped for their length, ties and pairs of equal answers do not count: a suite or the data ask for
    it.

    Args:
        where: what the rows are, such as `train (pairs.jsonl)`.
        read: counts of `PreferenceSet`.
        tokens: counts of `TokenTable`.
        examples: reason → number of the first such row, where it is known.
        most: the share that may be dropped, `data.max_dropped`.

    Raises:
        DataError: more are dropped.
    """
    lost = {name.removeprefix(_PREFIX): count for name, count in read.items() if name.startswith(_PREFIX)}
    lost = {name: count for name, count in lost.items() if not name.startswith(_MEANT)}
    for name, count in tokens.items():
        if (reason := name.removeprefix(_PREFIX)).startswith(_BY_TEMPLATE):
            lost[reason] = lost.get(reason, 0) + count
    kept = tokens["kept"] + sum(
        count for name, count in tokens.items() if name.startswith(_PREFIX) and name.removeprefix(_PREFIX) not in lost
    )
    rows = sum(lost.values()) + kept
    if not lost or sum(lost.values()) <= most * rows:
        return
    reason, count = max(lost.items(), key=lambda item: item[1])
    example = f", such as row {examples[reason]} (counted from 0)" if reason in examples else ""
    raise DataError(
        f"{where}: {sum(lost.values()):,} of {rows:,} rows ({sum(lost.values()) / rows:.1%}) cannot be used, more than "
        f"`data.max_dropped` allows ({most:.1%}). Most frequent reason, {count:,} rows: {reason}{example}.",
        fix=f"{advice(reason)}; or allow it, with `data: {{max_dropped: …}}`",
    )
