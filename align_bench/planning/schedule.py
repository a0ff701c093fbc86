"""How long work takes that several workers share: longest chain first, each piece after what it needs."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Schedule(Generic[T]):
    """When all is done.

    Attributes:
        seconds: from the beginning of the first piece to the end of the last one.
        chain: the critical path: the pieces, each of which needs the one before, that take longest together.
        chain_seconds: how long these take; no number of workers is faster.
    """

    seconds: float
    chain: tuple[T, ...]
    chain_seconds: float


def schedule(seconds: Mapping[T, float], needs: Mapping[T, Collection[T]], workers: int) -> Schedule[T]:
    """Divide work over workers: whoever is free takes the ready piece with the longest way to the end.

    Args:
        seconds: how long each piece takes one worker; every piece stands after those that it needs.
        needs: what has to be done before a piece.
        workers: how many pieces are made at a time; 1 or more.
    """
    users: dict[T, list[T]] = {piece: [] for piece in seconds}
    for piece in seconds:
        for needed in needs[piece]:
            users[needed].append(piece)
    left: dict[T, float] = {}
    for piece in reversed(list(seconds)):
        left[piece] = seconds[piece] + max((left[user] for user in users[piece]), default=0.0)
    chain: list[T] = []
    at = max(left, key=lambda piece: left[piece], default=None)
    while at is not None:
        chain.append(at)
        at = max(users[at], key=lambda piece: left[piece], default=None)
    ended = _simulated(seconds, needs, users, left, workers)
    return Schedule(ended, tuple(chain), max(left.values(), default=0.0))


def _simulated(
    seconds: Mapping[T, float],
    needs: Mapping[T, Collection[T]],
    users: Mapping[T, Collection[T]],
    left: Mapping[T, float],
    workers: int,
) -> float:
    """When the last piece ends."""
    place = {piece: number for number, piece in enumerate(seconds)}
    pieces = list(seconds)
    waits = {piece: len(needs[piece]) for piece in seconds}
    ready = [(-left[piece], place[piece]) for piece in seconds if not waits[piece]]
    ready.sort()
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < workers:
            _, number = heappop(ready)
            heappush(running, (now + seconds[pieces[number]], number))
        now, number = heappop(running)
        for user in users[pieces[number]]:
            waits[user] -= 1
            if not waits[user]:
                heappush(ready, (-left[user], place[user]))
    return now
