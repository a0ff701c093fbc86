"""The one reader of a user's local files: raw rows of .parquet, .jsonl, .json and .csv, and what is wrong with them.

What the columns mean is for `preferences` and `answers` to say.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from align_bench.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

Cells = Mapping[str, object]


@dataclass(frozen=True)
class Table:
    """Raw rows.

    Attributes:
        columns: all names, in the order in which they first come; a CSV or Parquet file may have one twice.
        rows: from the wanted columns to the rows; of a Parquet file only these are read, other rows hold all.
    """

    columns: tuple[str, ...]
    rows: Callable[[Sequence[str]], Iterable[Cells]]


def read_table(path: Path, where: str) -> Table:
    """Open a file by its suffix; all formats but Parquet are read at once.

    Args:
        path: a file that is there.
        where: what messages call it.

    Raises:
        DataError: its suffix is unknown, it is unreadable, malformed (with the line where there is one) or empty. The
            rows of a Parquet file may raise it later.
    """
    if path.suffix.lower() not in FORMATS:
        raise DataError(
            f"{where}: unknown kind of file {path.suffix or '(no suffix)'}; expected {', '.join(FORMATS)}.",
            fix="convert the file, or rename it if only its suffix is wrong",
        )
    try:
        if not path.stat().st_size:
            raise DataError(f"{where}: the file is empty.")
        return FORMATS[path.suffix.lower()](path, where)
    except UnicodeDecodeError as error:
        message = f"{where}: the text is not UTF-8 (byte {error.start})."
        raise DataError(message, fix="save the file as UTF-8") from error
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {error.strerror or error}.") from error


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _parquet(path: Path, where: str) -> Table:
    import pyarrow
    import pyarrow.parquet

    def broken(error: Exception) -> NoReturn:
        raise DataError(f"{where}: not a readable Parquet file: {first_line(error)}") from error

    def rows(columns: Sequence[str]) -> Iterator[Cells]:
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=4096, columns=list(columns)):
                    yield from batch.to_pylist()
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            broken(error)

    try:
        return Table(tuple(pyarrow.parquet.read_schema(path).names), rows)
    except (pyarrow.ArrowException, OSError) as error:
        broken(error)


def _json_lines(path: Path, where: str) -> Table:
    with path.open(encoding="utf-8-sig") as file:
        rows = [_json_line(line, where, number) for number, line in enumerate(file, 1) if line.strip()]
    return _objects(rows, where)


def _json_line(line: str, where: str, number: int) -> Cells:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}, line {number}: not valid JSON: {first_line(error)}") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}, line {number}: expected a JSON object, found {_json_kind(value)}.")
    return value


def _json(path: Path, where: str) -> Table:
    text = path.read_text(encoding="utf-8-sig")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        # Many tools write one object per line and still call the file .json.
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            return _json_lines(path, where)
        raise DataError(f"{where}, line {error.lineno}: not valid JSON: {error.msg}.") from error
    if not isinstance(value, list):
        raise DataError(f"{where}: expected a JSON list of objects, found {_json_kind(value)}.")
    for number, row in enumerate(value):
        if not isinstance(row, dict):
            raise DataError(f"{where}, row {number} (counted from 0): expected an object, found {_json_kind(row)}.")
    return _objects(value, where)


def _json_kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _objects(rows: Sequence[Cells], where: str) -> Table:
    if not rows:
        raise DataError(f"{where}: it holds no rows.")
    return Table(tuple(dict.fromkeys(name for row in rows for name in row)), lambda columns: rows)


def _csv(path: Path, where: str) -> Table:
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = tuple(reader.fieldnames or ())
            rows = [_csv_row(row, where, reader.line_num) for row in reader]
    except csv.Error as error:
        raise DataError(f"{where}, line {reader.reader.line_num}: not valid CSV: {error}.") from error
    finally:
        csv.field_size_limit(limit)
    return Table(columns, lambda columns: rows)


def _csv_row(row: dict[str, str], where: str, line: int) -> Cells:
    # DictReader files the cells beyond the header's under the key None.
    if None in row:
        raise DataError(
            f"{where}, line {line}: more cells than the header has.", fix="quote the texts that hold commas or newlines"
        )
    return row


FORMATS: Mapping[str, Callable[[Path, str], Table]] = {
    ".parquet": _parquet,
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv,
}
