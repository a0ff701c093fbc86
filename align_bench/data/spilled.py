"""Very many rows of a preference set in a temporary file, from which a batch at a time is read."""

from __future__ import annotations

import itertools
import json
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import IO, Any, overload

from align_bench.records import Message, Preference

IN_MEMORY_ROWS = 2**16
BATCH_ROWS = 2048
_FIELDS = tuple(field.name for field in fields(Preference))


def spilled(rows: Iterable[Preference]) -> Sequence[Preference]:
    """The rows as a tuple; more than `IN_MEMORY_ROWS` in a temporary file, which goes with the process."""
    left = iter(rows)
    first = tuple(itertools.islice(left, IN_MEMORY_ROWS + 1))
    return first if len(first) <= IN_MEMORY_ROWS else Spilled(itertools.chain(first, left))


class Spilled(Sequence[Preference]):
    """Rows in a temporary file, a line of JSON per batch; the batch that was read last is held.

    Args:
        rows: what is written, at once.
    """

    def __init__(self, rows: Iterable[Preference]) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="align-bench-")  # noqa: SIM115 - closed below
        weakref.finalize(self, self._file.close)
        self._starts: list[int] = []
        self._count = 0
        self._held: tuple[int, tuple[Preference, ...]] = (-1, ())
        self._lock = threading.Lock()
        left = iter(rows)
        while batch := tuple(itertools.islice(left, BATCH_ROWS)):
            self._starts.append(self._file.tell())
            self._file.write(json.dumps([*map(_as_json, batch)]).encode() + b"\n")
            self._count += len(batch)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> Preference: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Preference, ...]: ...

    def __getitem__(self, place: int | slice) -> Preference | tuple[Preference, ...]:
        if isinstance(place, slice):
            return tuple(self[each] for each in range(*place.indices(self._count)))
        if not -self._count <= place < self._count:
            raise IndexError(f"row {place} of {self._count}")
        number, within = divmod(place % self._count, BATCH_ROWS)
        return self._batch(number)[within]

    def __iter__(self) -> Iterator[Preference]:
        for number in range(len(self._starts)):
            yield from self._batch(number)

    def _batch(self, number: int) -> tuple[Preference, ...]:
        held, rows = self._held
        if held != number:
            with self._lock:
                self._file.seek(self._starts[number])
                line = self._file.readline()
            rows = tuple(map(_from_json, json.loads(line)))
            self._held = (number, rows)
        return rows

    def __repr__(self) -> str:
        return f"<{len(self):,} rows in a temporary file>"


def _as_json(row: Preference) -> list[object]:
    turns = [(turn.role, turn.content) for turn in row.prompt]
    return [turns if name == "prompt" else getattr(row, name) for name in _FIELDS]


def _from_json(values: list[Any]) -> Preference:
    found = dict(zip(_FIELDS, values, strict=True))
    prompt = tuple(Message(role, content) for role, content in found["prompt"])
    return Preference(**found | {"prompt": prompt, "candidates": tuple(found["candidates"])})
