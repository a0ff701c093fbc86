"""What can be wrong with rows before anything is trained on them: one-sided labels, leakage, another origin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from align_bench.records import Preference, PreferenceSet, TokenRow

Row = TypeVar("Row", "TokenRow", "Preference")

MOST_ROWS = 4000  # that token frequencies are counted on; their difference changes little with more


@dataclass(frozen=True, slots=True)
class Sides:
    """How many labels fall on one side.

    Attributes:
        labels: rows whose labels have sides.
        first: those that prefer the first answer, or call the only one desirable.
    """

    labels: int
    first: int


def label_sides(found: PreferenceSet) -> Sides | None:
    """How labels fall, by the place of the answer in its row, or in unpaired rows by what they say.

    Returns:
        None where pairs have no first answer, such as `chosen` and `rejected`.
    """
    unpaired = [row.chosen is not None for row in found.rows if row.chosen is None or row.rejected is None]
    if unpaired:
        return Sides(len(unpaired), sum(unpaired))
    numbered = [row.chosen_first for row in found.rows if row.chosen_first is not None]
    return Sides(len(numbered), sum(numbered)) if numbered else None


def with_prompts_of(rows: Iterable[Row], others: Iterable[Row]) -> list[Row]:
    """Rows whose very prompt is also one of the others', as tokens or as texts."""
    known = {row.prompt for row in others}
    return [row for row in rows if row.prompt in known]


def prompts_in(rows: Sequence[TokenRow], train: Sequence[TokenRow]) -> int:
    """Rows whose prompt is also one of the training rows'."""
    return len(with_prompts_of(rows, train))


def distance(rows: Sequence[TokenRow], train: Sequence[TokenRow]) -> float:
    """Total variation between the token frequencies of two sets' answers: 0 the same, 1 no token in common."""
    return _total_variation(_frequencies(rows[:MOST_ROWS]), _frequencies(train[:MOST_ROWS]))


def distance_of_halves(rows: Sequence[TokenRow]) -> float:
    """The same between two halves of one set, which share no prompt: what chance alone makes of it."""
    places: dict[tuple[int, ...], int] = {}
    halves: tuple[list[TokenRow], list[TokenRow]] = ([], [])
    for row in rows[:MOST_ROWS]:
        halves[places.setdefault(row.prompt, len(places)) % 2].append(row)
    return _total_variation(*map(_frequencies, halves)) if all(halves) else 1.0


def _frequencies(rows: Iterable[TokenRow]) -> dict[int, float]:
    counts: Counter[int] = Counter()
    for row in rows:
        counts.update(row.chosen or ())
        counts.update(row.rejected or ())
    total = counts.total()
    return {token: count / total for token, count in counts.items()} if total else {}


def _total_variation(one: dict[int, float], other: dict[int, float]) -> float:
    return sum(abs(one.get(token, 0.0) - other.get(token, 0.0)) for token in one.keys() | other.keys()) / 2
