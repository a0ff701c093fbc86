"""Label and choice columns: which values they hold, what each stands for, and what to write where that is unknown.

A column is looked at before it is believed: if more than 5% of its values are none of those that are expected, the
file is refused, with the values that it holds and a line to paste.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from align_bench.data.fields import DropError, number_of
from align_bench.data.written import ENOUGH
from align_bench.errors import DataError

Side = Literal[
    "a", "b", "drop"
]  # the first answer, the second one, neither; of a single answer: desirable, undesirable

SIDES: Mapping[str, Side] = {"a": "a", "b": "b", "drop": "drop", "desirable": "a", "undesirable": "b"}
SHOWN_VALUES = 12

_COMPARISON = re.compile(r"(<=|>=|<|>)\s*(-?\d+(?:\.\d+)?)")
_COMPARES: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TIES = ("tie", "tie (bothbad)", "tie (both bad)", "both", "both_bad", "draw", "equal", "same", "neither")
_WORDS = (
    ("desirable", "undesirable"),
    ("yes", "no"),
    ("good", "bad"),
    ("positive", "negative"),
    ("chosen", "rejected"),
    ("accepted", "rejected"),
    ("up", "down"),
)


def value_text(value: object) -> str:
    """A cell as `choice:` names it: numbers without needless decimals, texts in lower case, null as nothing.

    >>> [value_text(value) for value in (1.0, " 1 ", True, "Tie", None)]
    ['1', '1', 'true', 'tie', '']
    """
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).lower()
    number = number_of(value)
    if number is None:
        return "" if isinstance(value, float) and math.isnan(value) else str(value).strip().lower()
    return str(int(number)) if number.is_integer() else str(number)


@dataclass(frozen=True)
class Choice:
    """What the values of a choice or label column stand for.

    Attributes:
        sides: value, as `value_text` writes it, or a comparison such as `>0` → what it stands for.
        unfit: why a row with another value is dropped.
        strength: whether the size of the number says how strongly an answer is preferred.
    """

    sides: Mapping[str, Side]
    unfit: str
    strength: bool = False
    _comparisons: tuple[tuple[Callable[[float, float], bool], float, Side], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        found = [(match, side) for key, side in self.sides.items() if (match := _COMPARISON.fullmatch(key))]
        parsed = tuple((_COMPARES[match[1]], float(match[2]), side) for match, side in found)
        object.__setattr__(self, "_comparisons", parsed)

    def side(self, value: object) -> Side | None:
        """What a value stands for; None where it is not named."""
        text = value_text(value)
        if text in self.sides:
            return self.sides[text]
        number = None if isinstance(value, bool) else number_of(value)
        if number is None:
            return None
        return next((side for compare, bound, side in self._comparisons if compare(number, bound)), None)

    def decide(self, value: object) -> Literal["a", "b"]:
        """The preferred side.

        Raises:
            DropError: the value is not named, or stands for neither side.
        """
        side = self.side(value)
        if side is None:
            raise DropError(self.unfit)
        if side == "drop":
            text = value_text(value)
            raise DropError("tie" if text == "0" or text in _TIES else f"choice {text!r}")
        return side

    def margin(self, value: object) -> float | None:
        """How strongly the preferred answer is preferred, where the value says so."""
        number = number_of(value) if self.strength else None
        return None if number is None else abs(number)

    def fits(self, counts: Mapping[str, int]) -> bool:
        """Whether it names more than 95% of the values, null aside."""
        known = sum(count for value, count in counts.items() if value and self.side(value) is not None)
        total = sum(count for value, count in counts.items() if value)
        return known > ENOUGH * total or known == total


NUMBERED = Choice({"1": "a", "2": "b"}, "choice not 1 or 2")
_UNFIT_LABEL = "label not true or false"
LABELS = (
    Choice({"1": "a", "true": "a", "0": "b", "false": "b"}, _UNFIT_LABEL),
    Choice({"1": "a", "-1": "b"}, _UNFIT_LABEL),
    Choice({"desirable": "a", "undesirable": "b"}, _UNFIT_LABEL),
)


def choice_of(
    given: Mapping[str, str], answers: Sequence[str], column: str, counts: Mapping[str, int], where: str
) -> Choice:
    """What a column's values stand for: what the user says, or one of the known ways to write it.

    Args:
        given: the user's `choice:`; empty without one.
        answers: the two answers' columns; none where there is a single answer with a label.
        column: its name in the file.
        counts: the column's values, as `value_text` writes them → rows.
        where: the file, as messages call it.

    Raises:
        DataError: too many values are none of those.
    """
    known = (parsed(given, answers, where),) if given else ((NUMBERED,) if answers else LABELS)
    for choice in known:
        if choice.fits(counts):
            return choice
    expected = "those that `choice` names" if given else "1 or 2" if answers else "true or false"
    raise DataError(
        f"{where}: the column {column!r} holds {_listed(counts)}; expected {expected}.",
        fix=f"say what each value stands for, {proposal(counts, answers)}",
    )


def parsed(given: Mapping[str, str], answers: Sequence[str], where: str) -> Choice:
    """The user's `choice:`.

    Raises:
        DataError: a value of it is none of the answers' columns, `a`, `b`, `drop`, `desirable`, `undesirable`; or a key
            compares with something else than a number.
    """
    names: dict[str, Side] = dict(zip(answers, ("a", "b"), strict=False))
    names |= SIDES if answers else {word: SIDES[word] for word in ("desirable", "undesirable", "drop")}
    for key, target in given.items():
        if target not in names:
            raise DataError(f"{where}: `choice: {line({key: target})}`: expected one of {', '.join(names)}.")
        if key[:1] in ("<", ">") and not _COMPARISON.fullmatch(key):
            raise DataError(f"{where}: `choice: {line({key: target})}`: expected a comparison such as `>=4`.")
    sides = {key if _COMPARISON.fullmatch(key) else value_text(key): names[target] for key, target in given.items()}
    return Choice(sides, "value that `choice` does not name", strength=bool(answers) and {"<0", ">0"} <= sides.keys())


def count_values(values: Iterable[object]) -> Counter[str]:
    """Values of a column, as `value_text` writes them → rows."""
    return Counter(value_text(value) for value in values)


def proposal(counts: Mapping[str, int], answers: Sequence[str]) -> str:
    """The line to paste: one of the usual ways to write a choice, if it fits more than 95% of the values."""
    if (sides := usual(counts, answers)) is not None:
        return f"such as `choice: {line(sides)}` if that is what they mean"
    numbers = [number for number in map(number_of, counts) if number is not None]
    if not answers and len(numbers) > 2:
        return 'with a threshold N of your own: `choice: {">=N": desirable, "<N": undesirable}`'
    target = "ANSWER" if answers else "desirable|undesirable"
    shown = [value for value, _ in Counter(counts).most_common() if value][:SHOWN_VALUES]
    which = f", each one of {', '.join([*answers, 'drop'])}" if answers else ""
    return f"`choice: {line(dict.fromkeys(shown, target))}`{which}"


def usual(counts: Mapping[str, int], answers: Sequence[str]) -> dict[str, str] | None:
    """One of the usual ways to write a choice, if it names more than 95% of a column's values and both sides occur."""
    for sides in _candidates(counts, answers):
        choice = parsed(sides, answers, "")
        if choice.fits(counts) and {"a", "b"} <= {choice.side(value) for value in counts if value}:
            return sides
    return None


def usual_winners(columns: Sequence[str], answers: Sequence[str]) -> dict[str, str] | None:
    """What columns that tell the winner by a 1 stand for, by the ends of their names; None if that is not clear."""
    first, second = answers
    ends = _ends(first, second)
    sides: dict[str, str] = {}
    for column in columns:
        if any(word in column.lower() for word in ("tie", "draw", "neither")):
            sides[column] = "drop"
        elif column.endswith(ends):
            sides[column] = first if column.endswith(ends[0]) else second
    return sides if sorted(side for side in sides.values() if side != "drop") == sorted(answers) else None


def _candidates(counts: Mapping[str, int], answers: Sequence[str]) -> Iterable[dict[str, str]]:
    """Ways to write a choice, as far as the column's values are among them."""
    present = {value: value for value in counts if value}
    a, b = answers or ("desirable", "undesirable")
    ties = {value: "drop" for value in _TIES if value in present}
    pairs = [("1", "-1"), *_WORDS]
    if answers:
        ends = _ends(a, b)
        pairs = [(a, b), ends, (f"model_{ends[0]}", f"model_{ends[1]}"), ("a", "b"), ("model_a", "model_b")]
        pairs += [("response_a", "response_b"), ("1", "2"), ("0", "1"), ("first", "second"), ("left", "right")]
    for first, second in pairs:
        if (first, second) == ("1", "-1") or (first, second) == ("1", "2"):
            yield {first: a, second: b, **ties, **({"0": "drop"} if "0" in present else {})}
        else:
            yield {value_text(first): a, value_text(second): b, **ties}
    signs = {math.copysign(1, number) for number in map(number_of, present) if number}
    if answers and signs == {-1.0, 1.0}:
        yield {"<0": a, **({"0": "drop"} if "0" in present else {}), ">0": b}


def _ends(a: str, b: str) -> tuple[str, str]:
    """What tells two names apart: `response_a` and `response_b` are a and b."""
    same = next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), 0)
    return a[same:], b[same:]


def line(sides: Mapping[str, str]) -> str:
    """A `choice:` as YAML in one line.

    >>> line({"<0": "first", "tie (bothbad)": "drop"})
    '{"<0": first, "tie (bothbad)": drop}'
    """
    return "{" + ", ".join(f"{_quoted(key)}: {_quoted(side)}" for key, side in sides.items()) + "}"


def _quoted(text: str) -> str:
    """A text as YAML reads it back: quoted where it would be something else."""
    plain = re.fullmatch(r"-?\w+", text) and text.lower() not in (
        "yes",
        "no",
        "on",
        "off",
        "y",
        "n",
        "null",
        "true",
        "false",
    )
    return text if plain else json.dumps(text, ensure_ascii=False)


def _listed(counts: Mapping[str, int]) -> str:
    ordered = Counter(counts).most_common()
    shown = [
        f"{value[:40] or '(null)'} ({count:,} {'row' if count == 1 else 'rows'})"
        for value, count in ordered[:SHOWN_VALUES]
    ]
    more = len(ordered) - len(shown)
    return ", ".join(shown) + (f" and {more:,} other values" if more > 0 else "")


def winner(cells: Mapping[str, object], sides: Mapping[str, Side]) -> Literal["a", "b"]:
    """The preferred side of a row whose columns are each 1 (true) for one outcome.

    Args:
        cells: column → its cell.
        sides: column → what it stands for.

    Raises:
        DropError: no column or several are 1, or it is one that stands for neither side.
    """
    won = [side for column, side in sides.items() if value_text(cells.get(column)) in ("1", "true")]
    if len(won) != 1:
        raise DropError("not one winner")
    if won[0] == "drop":
        raise DropError("tie")
    return won[0]
