"""Every form in which rows lie on a disk gives the same rows, in one order; what cannot be read together is refused."""

import bz2
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from align_bench.data.answers import read_answers, scored_path, write_scores
from align_bench.data.files import find_files
from align_bench.data.fingerprint import fingerprint
from align_bench.data.preferences import DataSource, read
from align_bench.errors import DataError
from align_bench.planning.inputs import source_of
from align_bench.suite.load import load_suite
from align_bench.suite.models import DataFile

Row = dict[str, str]


def rows_from(start: int, count: int = 3) -> list[Row]:
    numbers = range(start, start + count)
    return [{"prompt": f"q{n}", "chosen": f"good {n}, “ü”", "rejected": f"bad {n}"} for n in numbers]


def lines(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def zstd(content: bytes) -> bytes:
    packed: bytes = pa.Codec("zstd").compress(content, asbytes=True)
    return packed


def comma_separated(rows: Sequence[Row]) -> bytes:
    return "".join(
        ",".join(f'"{cell}"' for cell in row) + "\r\n" for row in (rows[0], *(r.values() for r in rows))
    ).encode()


def arrow_stream(path: Path, rows: Sequence[Row]) -> None:
    table = pa.Table.from_pylist(list(rows))
    with pyarrow.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def arrow_file(path: Path, rows: Sequence[Row]) -> None:
    table = pa.Table.from_pylist(list(rows))
    with pyarrow.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def parquet(compression: str) -> Callable[[Path, Sequence[Row]], None]:
    return lambda path, rows: pq.write_table(
        pa.Table.from_pylist(list(rows)), path, compression=compression, row_group_size=2
    )


def content(of: Callable[[Sequence[Row]], bytes]) -> Callable[[Path, Sequence[Row]], object]:
    return lambda path, rows: path.write_bytes(of(rows))


FORMS: dict[str, tuple[str, Callable[[Path, Sequence[Row]], object]]] = {
    "json lines": ("a.jsonl", content(lines)),
    "json lines, mark": ("a.jsonl", content(lambda rows: b"\xef\xbb\xbf" + lines(rows))),
    "json lines, a mark per joined file": (
        "a.jsonl",
        content(lambda rows: b"".join(b"\xef\xbb\xbf" + lines([row]) for row in rows)),
    ),
    "json lines, UTF-16": ("a.jsonl", content(lambda rows: lines(rows).decode().encode("utf-16"))),
    "json lines, Windows": ("a.jsonl", content(lambda rows: lines(rows).replace(b"\n", b"\r\n"))),
    "json lines, gz": ("a.jsonl.gz", content(lambda rows: gzip.compress(lines(rows)))),
    "json lines, gz of parts": ("a.JSONL.GZ", content(lambda rows: b"".join(gzip.compress(lines([r])) for r in rows))),
    "json lines, zst": ("a.jsonl.zst", content(lambda rows: zstd(lines(rows)))),
    "json lines, zst of parts": ("a.jsonl.zst", content(lambda rows: b"".join(zstd(lines([row])) for row in rows))),
    "json": ("a.json", content(lambda rows: b"\xef\xbb\xbf" + json.dumps(rows).encode())),
    "json, gz": ("a.v2.json.gz", content(lambda rows: gzip.compress(json.dumps(rows).encode()))),
    "csv, mark": ("a.csv", content(lambda rows: b"\xef\xbb\xbf" + comma_separated(rows))),
    "csv, UTF-16": ("a.csv", content(lambda rows: comma_separated(rows).decode().encode("utf-16"))),
    "csv, zst": ("a.csv.zst", content(lambda rows: zstd(comma_separated(rows)))),
    **{
        f"parquet, {name}": ("a.parquet", parquet(name)) for name in ("none", "snappy", "gzip", "zstd", "brotli", "lz4")
    },
    "arrow stream": ("a.arrow", arrow_stream),
    "arrow file": ("a.arrow", arrow_file),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_rows_to_training_and_to_score(tmp_path: Path, form: str) -> None:
    name, write = FORMS[form]
    rows = rows_from(0)
    write(tmp_path / name, rows)
    pairs = read(DataSource(str(tmp_path / name))).rows
    assert [(row.pair, row.prompt[0].content, row.chosen, row.rejected) for row in pairs] == [
        (place, row["prompt"], row["chosen"], row["rejected"]) for place, row in enumerate(rows)
    ]
    answers = read_answers(tmp_path / name)
    assert list(answers.rows) == rows
    assert [one.answer for one in answers.answers["rejected"] if one] == [row["rejected"] for row in rows]


def written(folder: Path, *names: str) -> list[Path]:
    """Files of three rows each, numbered on in the order of the names."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(names):
        (folder / name).write_bytes(lines(rows_from(3 * place)))
    return [folder / name for name in names]


def prompts(*names: Path | str, split: str | None = None) -> list[str]:
    found = read(DataSource(", ".join(map(str, names)), split=split, files=tuple(map(str, names))))
    return [row.prompt[0].content for row in found.rows]


def test_shards_are_read_in_the_natural_order_of_their_names(tmp_path: Path) -> None:
    written(tmp_path / "data", "part-2.jsonl", "part-10.jsonl", "part-11.jsonl")
    (tmp_path / "data" / "README.md").write_text("about")
    (tmp_path / "data" / ".hidden.jsonl").write_text("not read")
    expected = [f"q{n}" for n in range(9)]
    assert prompts(tmp_path / "data") == prompts(tmp_path / "data" / "part-*.jsonl") == expected
    assert prompts(tmp_path / "**" / "part*") == expected
    assert [row.pair for row in read(DataSource(str(tmp_path / "data"))).rows] == list(range(9))


def test_a_list_is_read_in_its_own_order(tmp_path: Path) -> None:
    one, two = written(tmp_path, "a.jsonl", "b.jsonl")
    assert prompts(two, one) == ["q3", "q4", "q5", "q0", "q1", "q2"]
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines(rows_from(9))))
    assert prompts(tmp_path / "[ab].jsonl", tmp_path / "c.jsonl.gz") == [f"q{n}" for n in (*range(6), 9, 10, 11)]


def test_a_name_with_the_marks_of_a_pattern_is_the_file_of_that_name(tmp_path: Path) -> None:
    written(tmp_path, "a[1].jsonl", "a1.jsonl")
    assert prompts(tmp_path / "a[1].jsonl") == ["q0", "q1", "q2"]


def test_splits_of_a_folder_are_never_mixed(tmp_path: Path) -> None:
    names = ("train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "test-00000-of-00001.jsonl")
    written(tmp_path, *names)
    with pytest.raises(DataError, match="several splits: test, train"):
        prompts(tmp_path)
    with pytest.raises(DataError, match="several splits"):
        prompts(tmp_path / "*.jsonl")
    assert prompts(tmp_path, split="train") == prompts(tmp_path / "train-*") == [f"q{n}" for n in range(6)]
    assert prompts(tmp_path, split="test") == ["q6", "q7", "q8"]
    with pytest.raises(DataError, match=r"no split 'tets'\. Did you mean test"):
        prompts(tmp_path, split="tets")


@pytest.mark.parametrize("shards", [1, 2])
def test_a_saved_data_set(tmp_path: Path, shards: int) -> None:
    whole = datasets.Dataset.from_list(rows_from(0))
    whole.select([2, 0]).save_to_disk(tmp_path / "one", num_shards=shards)
    assert prompts(tmp_path / "one") == ["q2", "q0"]
    saved = {"train": whole, "test": whole.select([1])}
    datasets.DatasetDict(saved).save_to_disk(tmp_path / "many", num_shards={"train": shards, "test": 1})
    assert prompts(tmp_path / "many", split="train") == ["q0", "q1", "q2"]
    assert prompts(tmp_path / "many", split="test") == ["q1"]
    with pytest.raises(DataError, match="several splits: train, test"):
        prompts(tmp_path / "many")
    datasets.DatasetDict({"train": whole}).save_to_disk(tmp_path / "only")
    assert prompts(tmp_path / "only") == ["q0", "q1", "q2"]
    (tmp_path / "one" / f"data-00000-of-0000{shards}.arrow").unlink()
    with pytest.raises(DataError, match="names data that is not there"):
        prompts(tmp_path / "one")


def refused(tmp_path: Path, message: str, *names: str) -> str:
    """What is said, which is the same wherever the files are read."""
    paths = [str(tmp_path / name) for name in names]
    with pytest.raises(DataError, match=message) as pairs:
        read(DataSource(", ".join(paths), files=tuple(paths)))
    with pytest.raises(DataError, match=message) as answers:
        read_answers(paths)
    assert str(pairs.value) == str(answers.value)
    return str(pairs.value)


def test_what_cannot_be_read_together_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "a.jsonl", "b.json")
    refused(tmp_path, r"several kinds: \.jsonl, \.json", "")
    refused(tmp_path, "are the same file", "a.jsonl", "a.jsonl")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines(rows_from(0))))
    refused(tmp_path, "are the same file", "a.jsonl*")
    refused(tmp_path, "no file matches", "nothing-*.jsonl")
    refused(tmp_path, "no such file", "a.jsonl", "c.jsonl")
    (tmp_path / "empty").mkdir()
    refused(tmp_path, r"holds no \.parquet", "empty")
    pq.write_table(pa.table({"prompt": ["q"], "chosen": ["a"], "rejected": ["b"]}), tmp_path / "x.parquet")
    pq.write_table(pa.table({"prompt": ["q"], "chosen": ["a"]}), tmp_path / "y.parquet")
    said = refused(tmp_path, "are not those of", "x.parquet", "y.parquet")
    assert "y.parquet: its columns (prompt, chosen)" in said


@pytest.mark.parametrize(
    ("name", "bad", "place"),
    [
        ("b.jsonl", b'{"prompt": 1}\n{"prompt": \n', "line 2: not valid JSON"),
        ("b.jsonl", b'{"prompt": 1}\n' * 5000 + b'{"prompt": "\xff"}\n', "line 5001: the text is not UTF-8"),
        ("b.jsonl.gz", gzip.compress(b'{"prompt": 1}\n\n[]\n'), "line 3: expected a JSON object"),
        ("b.jsonl.gz", gzip.compress(b'{"prompt": 1}\n')[:-6], "cannot be unpacked"),
        ("b.jsonl.gz", b'{"prompt": 1}\n', "cannot be read: Not a gzipped file"),
        ("b.jsonl.zst", zstd(b'{"prompt": 1}\n')[:-4], "cannot be read"),
        ("b.jsonl.zst", zstd(b""), "the file is empty"),
    ],
    ids=lambda value: None if isinstance(value, str) else "bytes",  # a packed file holds the time
)
def test_messages_name_the_file_and_the_line(tmp_path: Path, name: str, bad: bytes, place: str) -> None:
    written(tmp_path, "a.jsonl")
    (tmp_path / name).write_bytes(bad)
    said = refused(tmp_path, place, "a.jsonl", name)
    assert f"{tmp_path / name}" in said


def test_a_row_that_stops_reading_is_named_by_its_file(tmp_path: Path) -> None:
    for name, count in (("a.jsonl", 2), ("b.jsonl", 3)):
        turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
        rows: list[dict[str, object]] = [
            {"chosen": turns, "rejected": [turns[0], {**turns[1], "content": "b"}]}
        ] * count
        rows[-1] = {"chosen": "plain", "rejected": "text"} if name == "b.jsonl" else rows[-1]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DataError, match=r"b\.jsonl, row 2 \(counted from 0\): there is no `prompt` column"):
        read(DataSource(str(tmp_path / "*.jsonl")))


@pytest.mark.parametrize(
    ("name", "packed", "message"),
    [("a.jsonl.bz2", bz2.compress(b"{}"), "unknown kind of file .bz2"), ("a.parquet.gz", b"x", "is not read")],
)
def test_other_packings_are_refused(tmp_path: Path, name: str, packed: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(packed)
    refused(tmp_path, message, name)


def test_the_fingerprint_covers_every_file_and_their_order(tmp_path: Path) -> None:
    one, two = map(str, written(tmp_path / "data", "a.jsonl", "b.jsonl"))
    folder = DataSource(str(tmp_path / "data"))
    found = {fingerprint(DataSource("x", files=files)) for files in [(one,), (two,), (one, two), (two, one)]}
    assert len(found) == 4
    before = fingerprint(folder)
    assert before == fingerprint(DataSource("x", files=(one, two))) in found
    Path(two).write_bytes(lines(rows_from(7)))
    changed = fingerprint(folder)
    assert changed != before
    written(tmp_path / "data", "a.jsonl", "b.jsonl", "c.jsonl")
    assert fingerprint(folder) not in (before, changed)


def test_a_suite_names_lists_patterns_and_folders_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "suite" / "data", "train-1.jsonl", "train-2.jsonl", "val.jsonl")
    (tmp_path / "suite" / "own.yaml").write_text(
        "name: own\nbase: embedded/tiny\ndata: {train: [data/train-2.jsonl, data/train-1.jsonl], val: data/va*.jsonl}\n"
        "judge: {method: rm, data: {path: data, split: train}}\nmethods: [dpo]\n"
    )
    monkeypatch.chdir(tmp_path)
    suite = load_suite("suite/own.yaml")
    train, val = source_of(suite.data.train, "train"), source_of(suite.data.val, "val")
    assert [row.prompt[0].content for row in read(train).rows] == ["q3", "q4", "q5", "q0", "q1", "q2"]
    assert [row.prompt[0].content for row in read(val).rows] == ["q6", "q7", "q8"]
    assert str(tmp_path / "suite" / "data" / "train-2.jsonl") in train.path
    judge = suite.judge[0].data  # type: ignore[union-attr]
    assert len(read(source_of(judge, "judge")).rows) == 6


def test_a_path_of_a_suite_is_a_name_or_some(tmp_path: Path) -> None:
    assert DataFile.model_validate({"path": "a.jsonl"}).paths == ("a.jsonl",)
    assert DataFile.model_validate({"path": ["a.jsonl", "b.jsonl"]}).paths == ("a.jsonl", "b.jsonl")
    with pytest.raises(ValueError, match="at least 1"):
        DataFile.model_validate({"path": []})


def test_names_with_nothing_to_sort_by_keep_the_order_of_their_texts(tmp_path: Path) -> None:
    names = ["b.jsonl", "a.jsonl", "a1b.jsonl", "a02b.jsonl", "a10b.jsonl"]
    written(tmp_path, *names)
    expected = ["a.jsonl", "a1b.jsonl", "a02b.jsonl", "a10b.jsonl", "b.jsonl"]
    assert [file.name for file in find_files([str(tmp_path)])] == expected


def test_scores_are_written_beside_one_file_and_else_where_the_user_says(tmp_path: Path) -> None:
    one, two = written(tmp_path, "a.v2.jsonl", "b.jsonl")
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(json.dumps(rows_from(0)).encode()))
    pq.write_table(pa.Table.from_pylist(rows_from(0, 2)), tmp_path / "d.parquet")
    pq.write_table(pa.Table.from_pylist(rows_from(2, 1)), tmp_path / "e.parquet")
    assert scored_path(read_answers(one)) == tmp_path / "a.v2.scored.jsonl"
    assert scored_path(read_answers(tmp_path / "c.json.gz")) == tmp_path / "c.scored.jsonl"
    assert scored_path(read_answers(tmp_path / "d.parquet")) == tmp_path / "d.scored.parquet"
    with pytest.raises(DataError, match="not of one file") as caught:
        scored_path(read_answers([str(one), str(two)]))
    assert "--out" in str(caught.value)
    write_scores(read_answers([str(tmp_path / "*.parquet")]), tmp_path / "out.parquet", {"score": [0.5, None, 1.5]})
    expected = [row | {"score": score} for row, score in zip(rows_from(0), (0.5, None, 1.5), strict=True)]
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == expected
