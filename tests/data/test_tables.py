"""One reader serves pairs and answers: the same rows, the same messages."""

import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from align_bench.data.answers import read_answers
from align_bench.data.preferences import DataSource, read
from align_bench.data.tables import read_table
from align_bench.errors import DataError
from align_bench.records import Json

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
# The examples share one folder: each writes its files anew.
shared = [HealthCheck.function_scoped_fixture]
examples = settings(max_examples=100, database=None, deadline=None, suppress_health_check=shared)


def rows_of(path: Path) -> tuple[tuple[str, ...], list[Mapping[str, object]]]:
    table = read_table(path, str(path))
    return table.columns, list(table.rows(table.columns))


@examples
@given(rows=st.lists(st.dictionaries(st.text(), values, max_size=4), min_size=1, max_size=5), escaped=st.booleans())
def test_json_lines_come_back_as_they_were_written(tmp_path: Path, rows: list[dict[str, Json]], escaped: bool) -> None:
    """Whatever stands in a text: quotes, line separators of Unicode, a byte order mark."""
    path = tmp_path / "data.jsonl"
    path.write_bytes("".join(json.dumps(row, ensure_ascii=escaped) + "\n" for row in rows).encode())
    columns, found = rows_of(path)
    assert found == rows
    assert columns == tuple(dict.fromkeys(name for row in rows for name in row))


@examples
@given(texts=st.lists(st.tuples(st.text(), st.text() | st.none()), min_size=1, max_size=5))
def test_parquet_and_json_hold_the_same_rows_as_json_lines(tmp_path: Path, texts: list[tuple[str, str | None]]) -> None:
    rows = [{"prompt": one, "answer": other} for one, other in texts]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    schema = pa.schema({"prompt": pa.string(), "answer": pa.string()})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.jsonl") == rows_of(tmp_path / "a.json") == rows_of(tmp_path / "a.parquet")


def test_parquet_reads_only_the_wanted_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["q"], "image": [b"\xff"]}), tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet", "a.parquet")
    assert table.columns == ("prompt", "image")
    assert list(table.rows(["prompt"])) == [{"prompt": "q"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b""),
        ("a.jsonl", b"\n"),
        ("a.jsonl", b'{"prompt": 1}\n{"prompt": \n'),
        ("a.jsonl", b"[1]\n"),
        ("a.jsonl", b'{"prompt": "\xff"}\n'),
        ("a.parquet", b"not parquet at all"),
    ],
)
def test_pairs_and_answers_are_told_the_same(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as pairs:
        read(DataSource(str(path)))
    with pytest.raises(DataError) as answers:
        read_answers(path)
    assert str(pairs.value) == str(answers.value)
    assert name in pairs.value.message
