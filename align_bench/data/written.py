"""Lists and objects that a file of texts, such as a CSV, holds written out: as JSON, or as Python prints them."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence

from align_bench.data.fields import DropError

ENOUGH = 0.95  # share of a column's cells that have to fit before the column is believed to be of a kind
# pandas writes a column of arrays without commas between the elements. No text within has a bare line break.
_NO_COMMA = re.compile(r"(?<=[}\]'\"])\s*\n\s*(?=[{\['\"])")


def written_list(text: str) -> object:
    """The list or object that a text writes; None where it writes none."""
    text = text.strip()
    if text[:1] not in ("[", "{"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of backslashes in the texts
            value: object = ast.literal_eval(_NO_COMMA.sub(", ", text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, list | dict) else None


def holds_turns(value: object) -> bool:
    """Whether a value is a list of turns, or one turn."""
    turns = value if isinstance(value, list) else [value]
    return bool(turns) and all(
        isinstance(turn, Mapping) and ({"role", "content"} <= turn.keys() or {"from", "value"} <= turn.keys())
        for turn in turns
    )


def holds_texts(value: object) -> bool:
    """Whether a value is a list of texts, some of which may be null."""
    return isinstance(value, list) and bool(value) and all(each is None or isinstance(each, str) for each in value)


def read_written(value: object) -> object:
    """A cell of a column that writes lists: what it writes; cells of other kinds stay.

    Raises:
        DropError: it begins like a list and cannot be read, because it was cut off, for example.
    """
    if not isinstance(value, str):
        return value
    found = written_list(value)
    if found is None and value.lstrip()[:1] in ("[", "{"):
        raise DropError("list written as text that cannot be read")
    return value if found is None else found


def columns_of_lists(rows: Iterable[Mapping[str, object]], names: Sequence[str], prompt: str | None) -> frozenset[str]:
    """The columns whose texts write lists of turns; or lists of texts, where the prompt's column does so too.

    A list of texts may be an answer as it stands (keywords as JSON). Where the prompt is one as well, it is a file of
    conversations.

    Args:
        rows: some rows.
        names: the columns to look at.
        prompt: the column of the prompt, if there is one.
    """
    cells: dict[str, list[object]] = {name: [] for name in names}
    for row in rows:
        for name in names:
            value = row.get(name)
            if value is not None and value != "":
                cells[name].append(written_list(value) if isinstance(value, str) else None)
    turns = {name for name, values in cells.items() if _share(holds_turns, values) > ENOUGH}
    texts = {name for name, values in cells.items() if _share(holds_texts, values) > ENOUGH}
    return frozenset(turns | (texts if prompt in texts else set()))


def _share(test: Callable[[object], bool], values: Sequence[object]) -> float:
    return sum(test(value) for value in values) / len(values) if values else 0.0
