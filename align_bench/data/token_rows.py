"""Token rows in Arrow: four bytes per token; a row becomes Python numbers when it is asked for.

Beyond `IN_MEMORY_BYTES` they lie in a temporary file that is mapped into memory, so that the system may take the memory
back. The file has no name any more once it is mapped: it goes with the process.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
from numpy.typing import NDArray

from align_bench.errors import DataError
from align_bench.records import TokenRow, TokenTable

_COUNTS_KEY = b"align_bench.counts"
_IDS = pyarrow.list_(pyarrow.int32())
_SCHEMA = pyarrow.schema(
    [
        ("pair", pyarrow.int64()),
        ("prompt", _IDS),
        ("chosen", _IDS),
        ("rejected", _IDS),
        ("gold_choice", pyarrow.int8()),
        ("margin", pyarrow.float64()),
    ]
)

Ids = Sequence[int]
Lists = Literal["prompt", "chosen", "rejected"]
IN_MEMORY_BYTES = 2**27  # of a table
_BATCH_ROWS = 2048


class TokenRows(Sequence[TokenRow]):
    """Rows of a token table, as a sequence that makes each row anew.

    Args:
        table: the rows, in the columns of a `TokenRow`.
    """

    def __init__(self, table: Any) -> None:
        self._table = table
        self._pairs = _numpy(table["pair"].combine_chunks())
        self._gold, self._margins = (table[name].combine_chunks() for name in ("gold_choice", "margin"))
        self._ids = {name: _IdColumn.of(table[name]) for name in ("prompt", "chosen", "rejected")}

    @classmethod
    def of(cls, rows: Iterable[TokenRow]) -> TokenRows:
        """The rows, in Arrow."""
        return rows if isinstance(rows, TokenRows) else joined(_batches(rows))

    @property
    def table(self) -> Any:
        """The columns."""
        return self._table

    def lengths(self, name: Lists) -> NDArray[np.int64]:
        """Tokens of each row's list, shape [rows]; −1 where it has none. No row is made."""
        return self._ids[name].lengths()

    def largest_id(self) -> int:
        """The largest token id of all rows; −1 without one."""
        return max((column.largest_id() for column in self._ids.values()), default=-1)

    def distinct_prompts(self) -> int:
        """How many different prompts there are."""
        return self._ids["prompt"].distinct()

    def __len__(self) -> int:
        return len(self._pairs)

    @overload
    def __getitem__(self, place: int) -> TokenRow: ...

    @overload
    def __getitem__(self, place: slice) -> TokenRows: ...

    def __getitem__(self, place: int | slice) -> TokenRow | TokenRows:
        if isinstance(place, slice):
            return TokenRows(self._table.take(_numbers(range(len(self))[place], pyarrow.int64())))
        if not -len(self) <= place < len(self):
            raise IndexError(f"row {place} of {len(self)}")
        place %= len(self)
        prompt, chosen, rejected = (column[place] for column in self._ids.values())
        gold, margin = self._gold[place].as_py(), self._margins[place].as_py()
        return TokenRow(int(self._pairs[place]), prompt or (), chosen, rejected, gold, margin)

    def __iter__(self) -> Iterator[TokenRow]:
        return map(self.__getitem__, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(row == another for row, another in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self):,} token rows>"


@dataclass(frozen=True, slots=True)
class _IdChunk:
    """Lists of token ids that lie one after the other, as numpy sees them.

    Attributes:
        ids: the ids of all rows, one after the other.
        bounds: where each row begins, and where the last one ends.
        present: which rows have a list.
    """

    ids: NDArray[np.int32]
    bounds: NDArray[np.int32]
    present: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _IdColumn:
    """A column of lists of token ids.

    Attributes:
        chunks: the lists, at least one chunk.
        starts: number of the first row of each chunk.
    """

    chunks: tuple[_IdChunk, ...]
    starts: tuple[int, ...]

    @classmethod
    def of(cls, column: Any) -> _IdColumn:
        lists = column.chunks or [_lists([])]
        chunks = tuple(
            _IdChunk(
                _numpy(each.values),
                _numpy(each.offsets),
                _numpy(each.is_valid().cast(pyarrow.uint8())).view(np.bool_),
            )
            for each in lists
        )
        return cls(chunks, tuple(np.cumsum([0, *(len(each) for each in lists[:-1])]).tolist()))

    def __getitem__(self, place: int) -> tuple[int, ...] | None:
        number = bisect_right(self.starts, place) - 1
        chunk, place = self.chunks[number], place - self.starts[number]
        if not chunk.present[place]:
            return None
        return tuple(chunk.ids[chunk.bounds[place] : chunk.bounds[place + 1]].tolist())

    def lengths(self) -> NDArray[np.int64]:
        """See `TokenRows.lengths`."""
        return np.concatenate(
            [
                np.where(chunk.present, np.diff(chunk.bounds), -1).astype(np.int64)
                for chunk in self.chunks
                if len(chunk.present)
            ]
            or [np.empty(0, dtype=np.int64)]
        )

    def largest_id(self) -> int:
        """See `TokenRows.largest_id`."""
        ids = (chunk.ids[chunk.bounds[0] : chunk.bounds[-1]] for chunk in self.chunks if len(chunk.present))
        return max((int(own.max()) for own in ids if len(own)), default=-1)

    def distinct(self) -> int:
        """How many different lists there are, by their bytes."""
        texts = []
        for chunk in (chunk for chunk in self.chunks if len(chunk.present)):
            bounds = pyarrow.py_buffer(4 * chunk.bounds.astype(np.int64))
            ids = pyarrow.py_buffer(np.ascontiguousarray(chunk.ids))
            texts.append(pyarrow.Array.from_buffers(pyarrow.large_binary(), len(chunk.present), [None, bounds, ids]))
        return int(pyarrow.compute.count_distinct(pyarrow.chunked_array(texts, pyarrow.large_binary())).as_py())


class RowBatch:
    """Rows on their way into Arrow."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}

    def append(
        self,
        pair: int,
        prompt: Ids,
        chosen: Ids | None,
        rejected: Ids | None,
        gold_choice: int | None = None,
        margin: float | None = None,
    ) -> None:
        """Add a row; its values are those of a `TokenRow`."""
        values = (pair, prompt, chosen, rejected, gold_choice, margin)
        for column, value in zip(self._columns.values(), values, strict=True):
            column.append(value)

    def table(self) -> Any:
        """The rows as an Arrow table."""
        columns = (
            _lists(values) if field.type == _IDS else _numbers(values, field.type)
            for field, values in zip(_SCHEMA, self._columns.values(), strict=True)
        )
        return pyarrow.table(list(columns), _SCHEMA)


# `pyarrow.array`, `empty_table` and `to_numpy` would import pandas, to ask whether something of it is at hand.


def _numbers(values: Sequence[float | None], kind: Any) -> Any:
    """An Arrow array of these numbers; None is null."""
    numbers = np.array([0 if value is None else value for value in values], kind.to_pandas_dtype())
    return pyarrow.Array.from_buffers(kind, len(values), [_present(values), pyarrow.py_buffer(numbers)])


def _lists(values: Sequence[Ids | None]) -> Any:
    """An Arrow array of these lists of token ids; None is null."""
    lists = [() if value is None else value for value in values]
    ids = np.fromiter(itertools.chain.from_iterable(lists), np.int32)
    bounds = np.cumsum([0, *map(len, lists)], dtype=np.int32)
    inner = pyarrow.Array.from_buffers(_IDS.value_type, len(ids), [None, pyarrow.py_buffer(ids)])
    return pyarrow.Array.from_buffers(_IDS, len(lists), [_present(values), pyarrow.py_buffer(bounds)], children=[inner])


def _numpy(array: Any) -> Any:
    """An Arrow array of numbers without nulls, as numpy sees it."""
    return np.from_dlpack(array)


def _present(values: Sequence[object]) -> Any:
    """Which values are there, a bit each, as Arrow has it; None where all are."""
    present = [value is not None for value in values]
    return None if all(present) else pyarrow.py_buffer(np.packbits(present, bitorder="little"))


def _batches(rows: Iterable[TokenRow]) -> Iterator[RowBatch]:
    left = iter(rows)
    while some := tuple(itertools.islice(left, _BATCH_ROWS)):
        batch = RowBatch()
        for row in some:
            batch.append(row.pair, row.prompt, row.chosen, row.rejected, row.gold_choice, row.margin)
        yield batch


def joined(batches: Iterable[RowBatch | Any]) -> TokenRows:
    """Batches, or tables of them, as one sequence of rows; beyond `IN_MEMORY_BYTES` in a temporary file."""
    tables, size = [RowBatch().table()], 0
    left = (batch.table() if isinstance(batch, RowBatch) else batch for batch in batches)
    for table in left:
        tables.append(table)
        size += table.nbytes
        if size > IN_MEMORY_BYTES:
            return TokenRows(_mapped(tables, left))
    return TokenRows(pyarrow.concat_tables(tables).combine_chunks())


def _mapped(tables: list[Any], more: Iterable[Any]) -> Any:
    """One table of all, in a temporary file; the list is emptied."""
    handle, path = tempfile.mkstemp(prefix="align-bench-", suffix=".arrow")
    try:
        with os.fdopen(handle, "wb") as file, pyarrow.ipc.new_file(file, _SCHEMA) as writer:
            while tables:
                writer.write_table(tables.pop(0))
            for table in more:
                writer.write_table(table)
        return pyarrow.ipc.open_file(pyarrow.memory_map(path)).read_all()
    finally:
        with contextlib.suppress(PermissionError):  # of a system that keeps the name of a file that is open
            Path(path).unlink()


def save_table(path: str | Path, table: TokenTable) -> None:
    """Write a token table as Parquet; `load_table` gives back an equal one."""
    counts = {_COUNTS_KEY: json.dumps(dict(table.counts)).encode()}
    pyarrow.parquet.write_table(TokenRows.of(table.rows).table.replace_schema_metadata(counts), path)


def load_table(path: str | Path) -> TokenTable:
    """Read a token table that `save_table` wrote.

    Raises:
        DataError: the file is missing, damaged or something else.
    """
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            metadata: Mapping[bytes, bytes] = file.schema_arrow.metadata or {}
            if _COUNTS_KEY not in metadata:
                raise DataError(f"{path}: a Parquet file, but not a token table (its counts are missing).")
            rows = joined(map(_as_now, file.iter_batches(_BATCH_ROWS)))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable token table: {error}") from error
    return TokenTable(rows, json.loads(metadata[_COUNTS_KEY]))


def _as_now(batch: Any) -> Any:
    """A batch of a stored table, with the columns that rows have by now."""
    table = pyarrow.Table.from_batches([batch]).replace_schema_metadata(None)
    if "margin" in table.column_names:
        return table
    return table.append_column(_SCHEMA.field("margin"), pyarrow.nulls(len(table), pyarrow.float64()))
