"""Which rows go through the model together: micro-batches that fit in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from heapq import heappop, heappush
from math import ceil

from align_bench.errors import DataError

# Tokens of a pass where the suite gives none. On a CPU larger ones are not faster, and keep more; they were measured by
# benchmarks/pass_sizes.py, see its results. Elsewhere a small pass takes as long as its thousands of kernels to start.
ENOUGH_FOR_A_CPU = 1024
ENOUGH_TO_TRAIN = 768  # on a CPU, of passes that keep their activations
ENOUGH_ELSEWHERE = 8192

_DIVISOR: ContextVar[int] = ContextVar("divisor", default=1)


@contextmanager
def half_as_much() -> Iterator[None]:
    """Passes, and batches of answers, hold half as much while the context lasts: after memory has run out."""
    with divided_by(2 * divisor()):
        yield


@contextmanager
def divided_by(number: int) -> Iterator[None]:
    """They hold that part of what they are allowed to, as they do in another process (`divisor`)."""
    before = _DIVISOR.set(number)
    try:
        yield
    finally:
        _DIVISOR.reset(before)


def divisor() -> int:
    """By what the limits of passes are divided; 1 as long as memory has not run out."""
    return _DIVISOR.get()


def fitting(limit: int) -> int:
    """What a pass may hold: the limit, or after memory has run out a part of it; at least 1."""
    return max(1, limit // divisor())


def training_tokens(given: int | None, device: str) -> int:
    """What a pass of a training may hold, in tokens.

    The size is part of a suite or of this version, never timed as a run begins: a sum in other parts ends in other
    bits, so that a suite would not give the same numbers twice.

    Args:
        given: the suite's `train.micro_batch_tokens`; None for the default of such a device.
        device: type of the device that computes, such as `cpu`.
    """
    return given or (ENOUGH_TO_TRAIN if device == "cpu" else ENOUGH_ELSEWHERE)


def scoring_tokens(given: int | None, device: str) -> int:
    """The same of a forward pass that keeps nothing for a backward one."""
    return given or (ENOUGH_FOR_A_CPU if device == "cpu" else ENOUGH_ELSEWHERE)


def micro_batches(indices: Iterable[int], lengths: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Split one effective batch, whose rows are padded to the longest of their part, into parts that fit in memory.

    Args:
        indices: rows of the batch.
        lengths: length in tokens of every row of the table, looked up by row number.
        max_tokens: bound of a part's padded size, rows × longest row, in tokens. A longer row goes alone. A part that
            is half full already takes no row that would be padded by more than a quarter of its length.

    Returns:
        Row numbers, longest part first, so that a part that does not fit fails at once.

    Raises:
        DataError: `max_tokens` is below 1.
    """
    _check(max_tokens)
    max_tokens = fitting(max_tokens)
    parts: list[list[int]] = []
    for index in _longest_first(indices, lengths):
        rows, longest = (len(parts[-1]), lengths[parts[-1][0]]) if parts else (0, 0)
        worth_its_padding = longest <= 1.25 * lengths[index] or 2 * rows * longest < max_tokens
        if rows and worth_its_padding and (rows + 1) * longest <= max_tokens:
            parts[-1].append(index)
        else:
            parts.append([index])
    return parts


def even_passes(indices: Iterable[int], lengths: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Split one effective batch, whose rows pass a CPU without padding, into few parts of about equal length.

    Args:
        indices, lengths: as in `micro_batches`.
        max_tokens: bound of a part's tokens. A longer row goes alone.

    Returns:
        Row numbers, longest part first.

    Raises:
        DataError: `max_tokens` is below 1.
    """
    _check(max_tokens)
    limit = fitting(max_tokens)
    longest_first = _longest_first(indices, lengths)
    count = min(ceil(sum(lengths[index] for index in longest_first) / limit), len(longest_first))
    while True:
        parts = _spread(longest_first, lengths, count)
        if all(tokens <= limit or len(part) == 1 for tokens, part in parts):
            return [part for _, part in sorted(parts, reverse=True)]
        count += 1


def shares(indices: Iterable[int], lengths: Sequence[int], count: int) -> list[list[int]]:
    """Divide one effective batch among processes, about as many tokens to each.

    Args:
        indices, lengths: as in `micro_batches`.
        count: how many shares.

    Returns:
        Row numbers of each share, longest row first; a share is empty where there are fewer rows.
    """
    return [rows for _, rows in _spread(_longest_first(indices, lengths), lengths, count)]


def _longest_first(indices: Iterable[int], lengths: Sequence[int]) -> list[int]:
    return sorted(indices, key=lambda index: (-lengths[index], index))


def _spread(longest_first: Sequence[int], lengths: Sequence[int], count: int) -> list[tuple[int, list[int]]]:
    """So many parts with their tokens: each row goes to the one that has the fewest."""
    parts: list[tuple[int, list[int]]] = [(0, []) for _ in range(count)]
    for index in longest_first:
        tokens, part = heappop(parts)
        heappush(parts, (tokens + lengths[index], [*part, index]))
    return parts


def _check(max_tokens: int) -> None:
    if max_tokens < 1:
        raise DataError(f"max_tokens is {max_tokens}; expected at least 1.")
