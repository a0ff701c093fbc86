"""Token rows in Arrow: four bytes per token; a row becomes Python numbers when it is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import pyarrow
import pyarrow.parquet

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


class TokenRows(Sequence[TokenRow]):
    """Rows of a token table, as a sequence that makes each row anew.

    Args:
        table: the rows, in the columns of a `TokenRow`.
    """

    def __init__(self, table: Any) -> None:
        self._table = table.combine_chunks()
        self._pairs = _whole(self._table["pair"]).to_numpy()
        self._gold, self._margins = (_whole(self._table[name]) for name in ("gold_choice", "margin"))
        self._ids = tuple(_IdColumn.of(self._table[name]) for name in ("prompt", "chosen", "rejected"))

    @classmethod
    def of(cls, rows: Iterable[TokenRow]) -> TokenRows:
        """The rows, in Arrow."""
        if isinstance(rows, TokenRows):
            return rows
        batch = RowBatch()
        for row in rows:
            batch.append(row.pair, row.prompt, row.chosen, row.rejected, row.gold_choice, row.margin)
        return joined([batch])

    @property
    def table(self) -> Any:
        """The columns."""
        return self._table

    def __len__(self) -> int:
        return len(self._pairs)

    @overload
    def __getitem__(self, place: int) -> TokenRow: ...

    @overload
    def __getitem__(self, place: slice) -> TokenRows: ...

    def __getitem__(self, place: int | slice) -> TokenRow | TokenRows:
        if isinstance(place, slice):
            return TokenRows(self._table.take(pyarrow.array(range(len(self))[place], type=pyarrow.int64())))
        if not -len(self) <= place < len(self):
            raise IndexError(f"row {place} of {len(self)}")
        place %= len(self)
        prompt, chosen, rejected = (column[place] for column in self._ids)
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
class _IdColumn:
    """A column of lists of token ids, as numpy sees it.

    Attributes:
        ids: the ids of all rows, one after the other.
        bounds: where each row begins, and where the last one ends.
        present: which rows have a list.
    """

    ids: Any
    bounds: Any
    present: Any

    @classmethod
    def of(cls, column: Any) -> _IdColumn:
        lists = _whole(column)
        present = lists.is_valid().to_numpy(zero_copy_only=False)
        return cls(lists.values.to_numpy(), lists.offsets.to_numpy(), present)

    def __getitem__(self, place: int) -> tuple[int, ...] | None:
        if not self.present[place]:
            return None
        return tuple(self.ids[self.bounds[place] : self.bounds[place + 1]].tolist())


def _whole(column: Any) -> Any:
    """A chunked column as one array."""
    return column.chunk(0) if column.num_chunks else pyarrow.array([], type=column.type)


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
        return pyarrow.table([pyarrow.array(self._columns[field.name], type=field.type) for field in _SCHEMA], _SCHEMA)


def joined(batches: Iterable[RowBatch | Any]) -> TokenRows:
    """Batches, or tables of them, as one sequence of rows."""
    tables = [batch.table() if isinstance(batch, RowBatch) else batch for batch in batches]
    return TokenRows(pyarrow.concat_tables([_SCHEMA.empty_table(), *tables]))


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
        table = pyarrow.parquet.ParquetFile(path).read()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable token table: {error}") from error
    metadata: Mapping[bytes, bytes] = table.schema.metadata or {}
    if _COUNTS_KEY not in metadata:
        raise DataError(f"{path}: a Parquet file, but not a token table (its counts are missing).")
    if "margin" not in table.column_names:  # written before rows had one
        table = table.append_column(_SCHEMA.field("margin"), pyarrow.nulls(len(table), pyarrow.float64()))
    return TokenTable(TokenRows(table), json.loads(metadata[_COUNTS_KEY]))
