"""Which first tokens sequences have in common, so that these pass a model once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def in_order(sequences: Sequence[Sequence[int]]) -> Iterator[tuple[int, int]]:
    """Sequences in an order in which none shares more first tokens with any before it than with the one before it.

    Args:
        sequences: token ids.

    Yields:
        The number of each sequence, and how many first tokens it shares with the one yielded before.
    """
    before: Sequence[int] = ()
    for number in sorted(range(len(sequences)), key=lambda number: tuple(sequences[number])):
        yield number, _common(before, sequences[number])
        before = sequences[number]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    shortest = min(len(one), len(other))
    return next((place for place in range(shortest) if one[place] != other[place]), shortest)
