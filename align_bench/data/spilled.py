"""Long sequences of records in a temporary file, from which a batch at a time is read."""

from __future__ import annotations

import itertools
import pickle
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Generic, TypeVar, overload

T = TypeVar("T")

IN_MEMORY_ROWS = 2**16
BATCH_ROWS = 2048


def spilled(rows: Iterable[T]) -> Sequence[T]:
    """The rows as a tuple; more than `IN_MEMORY_ROWS` in a temporary file, which goes with the process.

    Args:
        rows: records that can be pickled; the file is read by nothing else.
    """
    left = iter(rows)
    first = tuple(itertools.islice(left, IN_MEMORY_ROWS + 1))
    return first if len(first) <= IN_MEMORY_ROWS else Spilled(itertools.chain(first, left))


class Spilled(Sequence[T], Generic[T]):
    """Rows in a temporary file; the batch that was read last is held.

    Args:
        rows: what is written, at once.
    """

    def __init__(self, rows: Iterable[T]) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="align-bench-")  # noqa: SIM115 - closed below
        weakref.finalize(self, self._file.close)
        self._starts: list[int] = []
        self._count = 0
        self._held: tuple[int, tuple[T, ...]] = (-1, ())
        self._lock = threading.Lock()
        left = iter(rows)
        while batch := tuple(itertools.islice(left, BATCH_ROWS)):
            self._starts.append(self._file.tell())
            pickle.dump(batch, self._file, protocol=pickle.HIGHEST_PROTOCOL)
            self._count += len(batch)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> T: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[T, ...]: ...

    def __getitem__(self, place: int | slice) -> T | tuple[T, ...]:
        if isinstance(place, slice):
            return tuple(self[each] for each in range(*place.indices(self._count)))
        if not -self._count <= place < self._count:
            raise IndexError(f"row {place} of {self._count}")
        number, within = divmod(place % self._count, BATCH_ROWS)
        return self._batch(number)[within]

    def __iter__(self) -> Iterator[T]:
        for number in range(len(self._starts)):
            yield from self._batch(number)

    def _batch(self, number: int) -> tuple[T, ...]:
        held, rows = self._held
        if held != number:
            with self._lock:
                self._file.seek(self._starts[number])
                rows = pickle.load(self._file)
            self._held = (number, rows)
        return rows

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(row == another for row, another in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self):,} rows in a temporary file>"
