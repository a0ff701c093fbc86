"""The one reader of a user's local files: raw rows of the kinds in `FORMATS`, and what is wrong with them.

Rows come in batches or line by line, but for `.json`, which is read at once. What the columns mean is for
`preferences` and `answers` to say; which files are read, and in which order, is for `files`.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from align_bench.data.files import COMPRESSED, kind_of
from align_bench.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow

Cells = Mapping[str, object]

BATCH_ROWS = 4096
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # of UTF-8, utf-8-sig takes its own off


@dataclass(frozen=True)
class Table:
    """Raw rows.

    Attributes:
        columns: all names, in the order in which they first come; a CSV or Parquet file may have one twice.
        rows: from the wanted columns to the rows; of Parquet and Arrow files only these are read, other rows hold all.
        place: number of a row that was read, counted from 0 → where it stands.
    """

    columns: tuple[str, ...]
    rows: Callable[[Sequence[str]], Iterable[Cells]]
    place: Callable[[int], str] = "row {} (counted from 0)".format


def read_files(files: Sequence[Path]) -> Table:
    """Open files of one kind, whose rows come one file after the other.

    Args:
        files: at least one, from `files.find_files`.

    Raises:
        DataError: as `read_table`; or files with a header differ in their columns.
    """
    tables = [read_table(file, str(file)) for file in files]
    if len(tables) == 1:
        return tables[0]
    first = tables[0].columns
    for file, table in zip(files, tables, strict=True):
        if set(table.columns) != set(first) and kind_of(file) not in (".jsonl", ".json"):
            raise DataError(
                f"{file}: its columns ({', '.join(table.columns)}) are not those of {files[0]} ({', '.join(first)}).",
                fix="name files with the same columns",
            )
    sizes: list[int] = []

    def rows(columns: Sequence[str]) -> Iterator[Cells]:
        sizes.clear()
        for table in tables:
            sizes.append(0)
            for row in table.rows(columns):
                sizes[-1] += 1
                yield row

    def place(number: int) -> str:
        for file, size in zip(files, sizes, strict=False):
            if number < size:
                return f"{file.name}, row {number} (counted from 0)"
            number -= size
        raise IndexError(f"row {number} was not read")

    every = dict.fromkeys(name for table in tables for name in table.columns)
    return Table(first if len(set(first)) < len(first) else tuple(every), rows, place)


def read_table(path: Path, where: str) -> Table:
    """Open a file by its suffix; `.gz` and `.zst` after another suffix are unpacked as they are read.

    Args:
        path: a file that is there.
        where: what messages call it.

    Raises:
        DataError: its suffix is unknown, it is unreadable, malformed (with the line where there is one) or empty. The
            rows of CSV, Parquet and Arrow files may raise it later.
    """
    kind = kind_of(path)
    if kind not in FORMATS:
        raise DataError(
            f"{where}: unknown kind of file {path.suffix or '(no suffix)'}; expected {', '.join(FORMATS)}, of which "
            f".jsonl, .json and .csv may be compressed ({', '.join(COMPRESSED)}).",
            fix="convert the file, or rename it if only its suffix is wrong",
        )
    if path.suffix.lower() in COMPRESSED and kind in (".parquet", ".arrow"):
        raise DataError(
            f"{where}: a compressed {kind} file is not read.", fix="unpack it; Parquet compresses by itself"
        )
    with _said(path, where):
        if not path.stat().st_size:
            raise DataError(f"{where}: the file is empty.")
        return FORMATS[kind](path, where)


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def arrow_table(files: Sequence[Path]) -> pyarrow.Table:
    """All columns of Parquet or Arrow files of the same columns, with their types.

    Raises:
        DataError: a file is unreadable.
    """
    import pyarrow
    import pyarrow.parquet

    def whole(path: Path) -> pyarrow.Table:
        with _said_of_arrow(str(path)):
            if kind_of(path) == ".parquet":
                return pyarrow.parquet.read_table(path)
            with _arrow_batches(path) as (schema, batches):
                return pyarrow.Table.from_batches(list(batches), schema=schema)

    return pyarrow.concat_tables([whole(path) for path in files], promote_options="permissive")


@contextlib.contextmanager
def _said(path: Path, where: str) -> Iterator[None]:
    """Says in words why a file cannot be read."""
    try:
        yield
    except UnicodeDecodeError as error:
        line = _undecodable_line(path)
        message = f"{where}{f', line {line}' if line else ''}: the text is not UTF-8."
        raise DataError(message, fix="save the file as UTF-8") from error
    except (EOFError, zlib.error) as error:
        raise DataError(f"{where}: cannot be unpacked: {first_line(error)}", fix="fetch or pack it again") from error
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {error.strerror or error}.") from error


def _undecodable_line(path: Path) -> int | None:
    """The first line, counted from 1, that is not UTF-8."""
    with _bytes(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return None


def _bytes(path: Path) -> IO[bytes]:
    """A file's content, unpacked."""
    if path.suffix.lower() == ".gz":
        return io.BufferedReader(gzip.GzipFile(path))
    if path.suffix.lower() == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"))
    return path.open("rb")


@contextlib.contextmanager
def _text(path: Path, where: str, newline: str | None = None) -> Iterator[IO[str]]:
    """A file's text, unpacked, without its byte order mark."""
    with _bytes(path) as head:
        start = head.read(2)
    if not start:
        raise DataError(f"{where}: the file is empty.")
    with _bytes(path) as stream:
        encoding = _BYTE_ORDER_MARKS.get(start, "utf-8-sig")
        yield io.TextIOWrapper(stream, encoding=encoding, newline=newline)


def _parquet(path: Path, where: str) -> Table:
    import pyarrow.parquet

    def rows(columns: Sequence[str]) -> Iterator[Cells]:
        with _said_of_arrow(where), pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(columns)):
                yield from batch.to_pylist()

    with _said_of_arrow(where):
        return Table(tuple(pyarrow.parquet.read_schema(path).names), rows)


def _arrow(path: Path, where: str) -> Table:
    def rows(columns: Sequence[str]) -> Iterator[Cells]:
        with _said_of_arrow(where), _arrow_batches(path) as (_, batches):
            for batch in batches:
                wanted = batch.select(list(columns))
                for start in range(0, wanted.num_rows, BATCH_ROWS):
                    yield from wanted.slice(start, BATCH_ROWS).to_pylist()

    with _said_of_arrow(where), _arrow_batches(path) as (schema, _):
        return Table(tuple(schema.names), rows)


@contextlib.contextmanager
def _arrow_batches(path: Path) -> Iterator[tuple[pyarrow.Schema, Iterator[pyarrow.RecordBatch]]]:
    """Schema and batches of a file in either of Arrow's two forms: a stream, as `datasets` writes, or a file."""
    import pyarrow.ipc

    with pyarrow.memory_map(str(path)) as source:
        if source.read(6) == b"ARROW1":
            file = pyarrow.ipc.open_file(source)
            yield file.schema, (file.get_batch(number) for number in range(file.num_record_batches))
        else:
            source.seek(0)
            stream = pyarrow.ipc.open_stream(source)
            yield stream.schema, iter(stream)


@contextlib.contextmanager
def _said_of_arrow(where: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        kind = "Arrow" if where.lower().endswith(".arrow") else "Parquet"
        raise DataError(f"{where}: not a readable {kind} file: {first_line(error)}") from error


def _json_lines(path: Path, where: str) -> Table:
    def rows(columns: Sequence[str]) -> Iterator[Cells]:
        with _said(path, where), _text(path, where) as file:
            for number, line in enumerate(file, 1):
                if line.strip("\ufeff \t\r\n"):
                    yield _json_line(line, where, number)

    # The first pass finds the columns and every malformed line; rows are parsed again rather than held.
    return Table(_names(rows(()), where), rows)


def _json_line(line: str, where: str, number: int) -> Cells:
    try:
        value = json.loads(line.lstrip("\ufeff"))  # within a file where two were joined
    except RecursionError:
        raise DataError(f"{where}, line {number}: not valid JSON: lists and objects are nested too deep.") from None
    except ValueError as error:
        raise DataError(f"{where}, line {number}: not valid JSON: {first_line(error)}") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}, line {number}: expected a JSON object, found {_json_kind(value)}.")
    return value


def _json(path: Path, where: str) -> Table:
    with _text(path, where) as file:
        text = file.read()
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        # Many tools write one object per line and still call the file .json.
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            return _json_lines(path, where)
        raise DataError(f"{where}, line {error.lineno}: not valid JSON: {error.msg}.") from error
    except RecursionError:
        raise DataError(f"{where}: not valid JSON: lists and objects are nested too deep.") from None
    except ValueError as error:  # a number of thousands of digits
        raise DataError(f"{where}: not valid JSON: {first_line(error)}") from error
    if not isinstance(value, list):
        raise DataError(f"{where}: expected a JSON list of objects, found {_json_kind(value)}.")
    for number, row in enumerate(value):
        if not isinstance(row, dict):
            raise DataError(f"{where}, row {number} (counted from 0): expected an object, found {_json_kind(row)}.")
    return Table(_names(value, where), lambda columns: value)


def _json_kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _names(rows: Iterable[Cells], where: str) -> tuple[str, ...]:
    """The columns of rows that each name their own."""
    names: dict[str, None] = {}
    empty = True
    for row in rows:
        names.update(dict.fromkeys(row))
        empty = False
    if empty:
        raise DataError(f"{where}: it holds no rows.")
    return tuple(names)


def _csv(path: Path, where: str) -> Table:
    def rows(columns: Sequence[str]) -> Iterator[Cells]:
        with _said(path, where), _text(path, where, newline="") as file, _csv_errors(file, where) as reader:
            for row in reader:
                yield _csv_row(row, where, reader.line_num)

    with _text(path, where, newline="") as file, _csv_errors(file, where) as reader:
        return Table(tuple(reader.fieldnames or ()), rows)


@contextlib.contextmanager
def _csv_errors(file: IO[str], where: str) -> Iterator[csv.DictReader[str]]:
    reader = csv.DictReader(file, strict=True)
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield reader
    except csv.Error as error:
        raise DataError(f"{where}, line {reader.reader.line_num}: not valid CSV: {error}.") from error
    finally:
        csv.field_size_limit(limit)


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
    ".arrow": _arrow,
}
