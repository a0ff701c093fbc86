import csv
import json
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from align_bench.data.planted import planted
from align_bench.data.preferences import DataSource, read
from align_bench.errors import DataError
from align_bench.records import Json, Message, Preference

Row = dict[str, Json]
Turn = dict[str, str]
Write = Callable[..., DataSource]


@pytest.fixture
def jsonl(tmp_path: Path) -> Write:
    def write(*rows: Row, name: str = "data.jsonl") -> DataSource:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return DataSource(str(path))

    return write


def user(text: str) -> Turn:
    return {"role": "user", "content": text}


def bot(text: str) -> Turn:
    return {"role": "assistant", "content": text}


def system(text: str) -> Turn:
    return {"role": "system", "content": text}


def course(choice: Json = 1, question: Json = "q", first: Json = "one", second: Json = "two") -> Row:
    return {"question": question, "response_1": first, "response_2": second, "overall_response": choice}


def pair(prompt: Json = "q", chosen: Json = "good", rejected: Json = "bad") -> Row:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def only(source: DataSource) -> Preference:
    (row,) = read(source).rows
    return row


def fix(caught: pytest.ExceptionInfo[DataError]) -> str:
    assert caught.value.fix is not None
    return caught.value.fix


def roles(row: Preference) -> list[str]:
    return [turn.role for turn in row.prompt]


@pytest.mark.parametrize("choice", [1, "1", " 1 ", 1.0, "1.0"])
def test_first_response_is_chosen(jsonl: Write, choice: Json) -> None:
    row = only(jsonl(course(choice)))
    assert (row.chosen, row.rejected) == ("one", "two")


@pytest.mark.parametrize("choice", [2, "2", " 2 ", 2.0])
def test_second_response_is_chosen(jsonl: Write, choice: Json) -> None:
    row = only(jsonl(course(choice)))
    assert (row.chosen, row.rejected) == ("two", "one")
    assert row.prompt == (Message("user", "q"),)


@pytest.mark.parametrize("choice", [0, 3, 1.5, True, None, "", "one", "nan", [1]])
def test_other_choices_are_dropped_and_counted(jsonl: Write, choice: Json) -> None:
    data = read(jsonl(*[course(1)] * 20, course(choice)))
    assert data.counts == {"read": 21, "kept": 20, "dropped: choice not 1 or 2": 1}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (course(first="same", second="same"), "equal answers"),
        (course(first=" \n\t"), "empty response"),
        (course(second=""), "empty response"),
        (course(question="  "), "empty prompt"),
        (course(question=None), "null cell"),
        (course(second=None), "null cell"),
        (course(first=7), "cell is neither text nor a list of turns"),
        (course(first="\ud800"), "text is not valid Unicode"),
    ],
)
def test_unusable_rows_are_dropped_and_counted(jsonl: Write, row: Row, reason: str) -> None:
    data = read(jsonl(course(), row, course(2)))
    assert data.counts == {"read": 3, "kept": 2, f"dropped: {reason}": 1}
    assert [each.pair for each in data.rows] == [0, 2]


def test_json_nan_is_a_null_cell(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(
        '[{"prompt": NaN, "chosen": "a", "rejected": "b"}, {"prompt": "q", "chosen": "a", "rejected": "b"}]'
    )
    assert read(DataSource(str(path))).counts["dropped: null cell"] == 1


def test_texts_are_verbatim(jsonl: Write) -> None:
    row = only(jsonl(course(question="  NA ", first="nan", second="null\r\n")))
    assert (row.prompt[0].content, row.chosen, row.rejected) == ("  NA ", "nan", "null\r\n")


def test_no_usable_row_is_an_error_that_counts(jsonl: Write) -> None:
    with pytest.raises(DataError, match=r"none of its 2 rows can be used: 2 dropped: equal answers"):
        read(jsonl(*[course(first="x", second="x")] * 2))


def test_rows_counts_kept_rows(jsonl: Write) -> None:
    source = jsonl(course(first="x", second="x"), course(), course(2), course())
    data = read(replace(source, rows=2))
    assert [row.pair for row in data.rows] == [1, 2]
    assert data.counts == {"read": 3, "kept": 2, "dropped: equal answers": 1}
    assert len(read(replace(source, rows=99)).rows) == 3


@pytest.mark.parametrize("rows", [0, -1])
def test_rows_must_be_positive(jsonl: Write, rows: int) -> None:
    with pytest.raises(DataError, match=f"`rows` is {rows}"):
        read(replace(jsonl(course()), rows=rows))


def test_parts_of_the_prompts_share_none_and_leave_none_out(jsonl: Write) -> None:
    source = jsonl(*(pair(f"q{number // 2}", chosen=f"a{number}") for number in range(400)), pair(chosen="bad"))
    whole = read(source)
    low, high = (read(replace(source, prompts=part)) for part in ((0.0, 0.3), (0.3, 1.0)))
    assert not {row.prompt for row in low.rows} & {row.prompt for row in high.rows}
    assert sorted((*low.rows, *high.rows), key=lambda row: row.pair) == list(whole.rows)
    assert 0.2 < len(low.rows) / 400 < 0.4
    assert low.counts["prompts of another part"] == high.counts["kept"] == len(high.rows)
    assert low.counts["read"] == high.counts["read"] == 401
    first = [read(replace(source, prompts=part, rows=100)) for part in ((0.0, 0.3), (0.3, 1.0))]
    assert sum(len(each.rows) for each in first) == 100, "rows are counted before the part is taken"
    narrower = read(replace(source, prompts=(0.0, 0.1)))
    assert set(narrower.rows) <= set(low.rows)


TALK = [system("be kind"), user("hi"), bot("hello"), user("why?")]


def test_plain_pair(jsonl: Write) -> None:
    row = only(jsonl(pair()))
    assert row.prompt == (Message("user", "q"),)
    assert (row.chosen, row.rejected) == ("good", "bad")


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected"),
    [
        (TALK, "good", "bad"),
        (TALK, [bot("good")], [bot("bad")]),
        (TALK, [*TALK, bot("good")], [*TALK, bot("bad")]),
        (TALK, [*TALK[1:], bot("good")], [*TALK[1:], bot("bad")]),
        (TALK[:1] + TALK[1:2], [bot("hello"), user("why?"), bot("good")], [bot("hello"), user("why?"), bot("bad")]),
        ("hi", [*TALK, bot("good")], [*TALK, bot("bad")]),
        (" why?\n", [*TALK, bot("good")], [*TALK, bot("bad")]),
        (TALK, [bot("good")], "bad"),
    ],
)
def test_turns_in_prompt_or_answers(jsonl: Write, prompt: Json, chosen: Json, rejected: Json) -> None:
    row = only(jsonl(pair(prompt, chosen, rejected)))
    assert row.prompt == tuple(Message(**turn) for turn in TALK)
    assert (row.chosen, row.rejected) == ("good", "bad")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (pair([]), "empty prompt"),
        (pair([user(" ")]), "empty prompt"),
        (pair([system("be kind")]), "prompt does not end with a user turn"),
        (pair([user("hi"), bot("hello")]), "prompt does not end with a user turn"),
        (pair(chosen=[]), "empty response"),
        (pair(chosen=[bot(" ")]), "empty response"),
        (pair(chosen=[user("q")]), "last turn is not the assistant's"),
        (pair(chosen=[user("other"), bot("good")]), "answer to another prompt"),
        (pair(chosen=[user("q"), bot("a"), user("b"), bot("c")]), "answers differ before the last turn"),
        (pair(chosen=[{"role": "assistant"}]), "turn without role and content"),
        (pair(chosen=[7]), "turn without role and content"),
        (pair(chosen=[{"role": "assistant", "content": None}]), "null cell"),
        (pair(chosen=[bot("same")], rejected="same"), "equal answers"),
    ],
)
def test_unusable_conversations_are_counted(jsonl: Write, row: Row, reason: str) -> None:
    assert read(jsonl(pair(), row)).counts == {"read": 2, "kept": 1, f"dropped: {reason}": 1}


def test_transcript_prompts(jsonl: Write) -> None:
    prompt = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: why?\n\nAssistant:"
    row = only(jsonl(pair(prompt)))
    assert [turn.content for turn in row.prompt] == ["hi", "hello", "why?"]
    assert only(jsonl(pair(prompt, prompt + " good", prompt + " bad"))).chosen == "good"


def test_an_answer_that_looks_like_a_transcript_stays_verbatim(jsonl: Write) -> None:
    answer = "Human: knock\n\nAssistant: who?"
    assert only(jsonl(pair(chosen=answer))).chosen == answer
    assert only(jsonl(course(first=answer))).chosen == answer


def test_prompt_implied_by_turns(jsonl: Write) -> None:
    row = only(jsonl({"chosen": [*TALK, bot("good")], "rejected": [*TALK, bot("bad")]}))
    assert roles(row) == ["system", "user", "assistant", "user"]
    assert (row.chosen, row.rejected) == ("good", "bad")


def test_prompt_implied_by_transcripts(jsonl: Write) -> None:
    start = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: two\n\nparts\n\nAssistant: "
    row = only(jsonl({"chosen": start + "good\n\nreally", "rejected": start + "bad"}))
    assert [turn.content for turn in row.prompt] == ["hi", "hello", "two\n\nparts"]
    assert roles(row) == ["user", "assistant", "user"]
    assert (row.chosen, row.rejected) == ("good\n\nreally", "bad")


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        ([user("a"), bot("x")], [user("b"), bot("y")], "answers differ before the last turn"),
        ([bot("x")], [bot("y")], "empty prompt"),
        ([user("a")], [user("a"), bot("y")], "last turn is not the assistant's"),
        (None, [user("a"), bot("y")], "null cell"),
        ("\n\nHuman: a\n\nAssistant:", "\n\nHuman: a\n\nAssistant: y", "empty response"),
        ("\n\nHuman: a\n\nAssistant: x", "\n\nHuman: a\n\nAssistant: x", "equal answers"),
    ],
)
def test_implied_prompts_that_cannot_be_used(jsonl: Write, chosen: Json, rejected: Json, reason: str) -> None:
    good = {"chosen": [user("a"), bot("x")], "rejected": [user("a"), bot("y")]}
    data = read(jsonl(good, {"chosen": chosen, "rejected": rejected}))
    assert data.counts == {"read": 2, "kept": 1, f"dropped: {reason}": 1}


def test_plain_texts_without_prompt_are_an_error(jsonl: Write) -> None:
    with pytest.raises(DataError, match=r"row 0 .*no `prompt` column") as caught:
        read(jsonl({"chosen": "good", "rejected": "bad"}))
    assert "columns: {prompt: COLUMN}" in fix(caught)


@pytest.mark.parametrize("label", [True, 1, 1.0, "true", " True", "1"])
def test_desirable_rows(jsonl: Write, label: Json) -> None:
    row = only(jsonl({"prompt": "q", "completion": "a", "label": label}))
    assert (row.chosen, row.rejected) == ("a", None)


@pytest.mark.parametrize("label", [False, 0, 0.0, "false", "FALSE", "0"])
def test_undesirable_rows(jsonl: Write, label: Json) -> None:
    row = only(jsonl({"prompt": [user("q")], "completion": [bot("a")], "label": label}))
    assert (row.chosen, row.rejected) == (None, "a")


@pytest.mark.parametrize("label", [None, 2, "yes", ""])
def test_other_labels_are_dropped_and_counted(jsonl: Write, label: Json) -> None:
    rows = [{"prompt": "q", "completion": "a", "label": each} for each in (*[True] * 20, label)]
    assert read(jsonl(*rows)).counts["dropped: label not true or false"] == 1


def test_columns_rename(jsonl: Write) -> None:
    source = replace(jsonl({"query": "q", "better": "a", "worse": "b"}), columns={
        "prompt": "query", "chosen": "better", "rejected": "worse",
    })  # fmt: skip
    row = only(source)
    assert (row.prompt[0].content, row.chosen, row.rejected) == ("q", "a", "b")


def test_one_column_may_serve_under_two_names(jsonl: Write) -> None:
    assert only(replace(jsonl({"prompt": "q", **course()}), columns={"question": "prompt"})).prompt[0].content == "q"


def test_columns_decide_between_shapes(jsonl: Write) -> None:
    row = {**pair(), "completion": "c", "liked": False}
    assert read(jsonl(row)).shape == "prompt + chosen + rejected"
    assert only(replace(jsonl(row), columns={"label": "liked"})).rejected == "c"


def test_missing_column_says_what_mends_it(jsonl: Write) -> None:
    rows = {"instruction": "q", "output_1": "a", "output_2": "b", "preference": 1}
    with pytest.raises(DataError, match=r"its columns \(instruction, output_1, output_2, preference\)") as caught:
        read(jsonl(rows))
    assert "question + response_1 + response_2 + overall_response; prompt + chosen + rejected" in caught.value.message
    edit = "columns: {question: instruction, response_1: output_1, response_2: output_2, overall_response: preference}"
    assert edit in fix(caught)
    mended = {"question": "instruction", "response_1": "output_1", "response_2": "output_2"}
    assert only(replace(jsonl(rows), columns={**mended, "overall_response": "preference"})).chosen == "a"


def test_nearest_column_names(jsonl: Write) -> None:
    with pytest.raises(DataError) as caught:
        read(jsonl({"prompt": "q", "chosn": "a", "rejectd": "b"}))
    assert "columns: {chosen: chosn, rejected: rejectd}" in fix(caught)


def test_unguessable_columns(jsonl: Write) -> None:
    with pytest.raises(DataError) as caught:
        read(jsonl({"prompt": "q", "chosen": "a", "zzz": "b"}))
    assert "columns: {rejected: COLUMN}" in fix(caught)


def test_columns_must_name_known_things(jsonl: Write) -> None:
    with pytest.raises(DataError, match="Did you mean chosen"):
        read(replace(jsonl(pair()), columns={"chosenn": "chosen"}))
    with pytest.raises(DataError, match=r"names a column that is not there. Did you mean chosen"):
        read(replace(jsonl(pair()), columns={"chosen": "chosenn"}))


def test_gold_columns_are_kept_and_give_gold_choice(jsonl: Write) -> None:
    gold = {"gold": "Paris", "candidates": ["Paris", "Rome"]}
    rows = [
        pair(chosen="Paris.", rejected="Rome.") | gold,
        pair(chosen="Rome.", rejected="Paris.") | gold,
        pair(chosen="Paris.", rejected="It is Paris.") | gold,
        pair() | {"gold": None},
        pair(chosen="4", rejected="5") | {"gold": 4, "candidates": "[]"},
    ]
    data = read(jsonl(*rows))
    assert [row.gold_choice for row in data.rows] == [1, 2, None, None, 1]
    assert [row.gold for row in data.rows] == ["Paris", "Paris", "Paris", None, "4"]
    assert data.rows[0].candidates == ("Paris", "Rome")


def test_unpaired_rows_have_no_gold_choice(jsonl: Write) -> None:
    row = only(jsonl({"prompt": "q", "completion": "4", "label": True, "gold": "4"}))
    assert (row.gold, row.gold_choice) == ("4", None)


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    rows = [
        {**pair([user("q")], [bot("good")], [bot("bad")]), "image": b"\xff", "candidates": ["a", "b"]},
        {**pair(None, [bot("good")], [bot("bad")]), "image": b"", "candidates": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    data = read(DataSource(str(path)))
    assert data.counts == {"read": 2, "kept": 1, "dropped: null cell": 1}
    assert data.rows[0].chosen == "good"
    assert data.rows[0].candidates == ("a", "b")


def test_csv_keeps_quotes_newlines_and_long_cells(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    long = "x" * 200_000
    limit = csv.field_size_limit()
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([list(course()), ["NA", 'say "a, b"\nc', long, "2"], ["q", "nan", "", "1"]])
    data = read(DataSource(str(path)))
    assert (data.rows[0].prompt[0].content, data.rows[0].chosen, data.rows[0].rejected) == (
        "NA",
        long,
        'say "a, b"\nc',
    )
    assert data.counts["dropped: empty response"] == 1
    assert csv.field_size_limit() == limit


def test_json_list_and_mislabelled_json_lines(jsonl: Write, tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps([pair(), pair()], indent=1))
    assert len(read(DataSource(str(path))).rows) == 2
    assert len(read(jsonl(pair(), pair(), name="lines.json")).rows) == 2


def test_blank_json_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(f"\ufeff{json.dumps(pair())}\n\n{json.dumps(pair())}\n", encoding="utf-8")
    assert len(read(DataSource(str(path))).rows) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "the file is empty"),
        ("a.parquet", b"", "the file is empty"),
        ("a.csv", b"", "the file is empty"),
        ("a.jsonl", b"\n\n", "it holds no rows"),
        ("a.json", b"[]", "it holds no rows"),
        ("a.csv", b"prompt,chosen,rejected\n", "it holds no rows"),
        ("a.parquet", b"not parquet at all", "not a readable Parquet file"),
        ("a.jsonl", b'{"prompt": 1}\n{"prompt": \n', "line 2: not valid JSON"),
        ("a.jsonl", b"[1]\n", "line 1: expected a JSON object, found a list"),
        ("a.json", b'[{"prompt": 1},\n oops]', "line 2: not valid JSON"),
        ("a.json", b'{"data": []}', "expected a JSON list of objects, found an object"),
        ("a.json", b'[{}, "x"]', "row 1 .* expected an object, found a text"),
        ("a.csv", b"prompt,chosen,rejected\na,b,c,d\n", "line 2: more cells than the header has"),
        ("a.csv", b'prompt,chosen,rejected\na,b,"c"d\n', "line 2: not valid CSV"),
        ("a.csv", b"prompt,chosen,chosen\na,b,c\n", "column 'chosen' is there twice"),
        ("a.csv", b"prompt,chosen,rejected\na,b,\xff\n", "not UTF-8"),
        ("a.jsonl", b'{"prompt": "\xff"}\n', "not UTF-8"),
        ("a.xlsx", b"PK", "unknown kind of file .xlsx; expected .parquet, .jsonl, .json, .csv"),
        ("data", b"PK", r"unknown kind of file \(no suffix\)"),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(DataSource(str(path)))
    assert name in caught.value.message


def test_parquet_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({name: pa.array([], pa.string()) for name in pair()}), path)
    with pytest.raises(DataError, match="it holds no rows"):
        read(DataSource(str(path)))


def test_damaged_parquet_pages(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([pair(chosen="x" * 5000)] * 50), path, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read(DataSource(str(path)))


def test_missing_file_suggests_a_neighbour(jsonl: Write, tmp_path: Path) -> None:
    jsonl(pair(), name="train.jsonl")
    with pytest.raises(DataError, match="no such file") as caught:
        read(DataSource(str(tmp_path / "trian.jsonl")))
    assert "train.jsonl" in fix(caught)
    with pytest.raises(DataError, match="no such file") as caught:
        read(DataSource(str(tmp_path / "nowhere" / "train.jsonl")))
    assert "does not exist either" in fix(caught)


class FakeDataset:
    def __init__(self, rows: Sequence[Mapping[str, object]]) -> None:
        self.rows = rows
        self.column_names = list(rows[0])

    def select_columns(self, columns: list[str]) -> list[dict[str, object]]:
        return [{column: row[column] for column in columns} for row in self.rows]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """A stand-in for the package datasets, whose `load_dataset` returns or raises `hub.result`."""
    fake = types.SimpleNamespace(result=None, calls=[])

    def load_dataset(
        name: str, config: str | None = None, *, split: str | None = None, revision: str | None = None
    ) -> object:
        fake.calls.append((name, config, split, revision))
        if isinstance(fake.result, Exception):
            raise fake.result
        return fake.result

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return fake


def test_hub_data(hub: types.SimpleNamespace) -> None:
    hub.result = FakeDataset([{**pair(), "image": object()}])
    assert only(DataSource("owner/name:config", split="train", revision="v1")).chosen == "good"
    assert hub.calls == [("owner/name", "config", "train", "v1")]


def test_hub_data_with_one_split_needs_no_name(hub: types.SimpleNamespace) -> None:
    hub.result = {"train": FakeDataset([pair()])}
    assert only(DataSource("owner/name")).chosen == "good"
    hub.result = {"train": FakeDataset([pair()]), "test": FakeDataset([pair()])}
    with pytest.raises(DataError, match="several splits: train, test"):
        read(DataSource("owner/name"))


def test_hub_failure_in_words(hub: types.SimpleNamespace) -> None:
    hub.result = ConnectionError("no route to host\ndetails")
    with pytest.raises(
        DataError, match=r"no local file of this name.*ConnectionError: no route to host\n  → check"
    ) as caught:
        read(DataSource("owner/name"))
    assert "network" in fix(caught)


def test_hub_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError) as caught:
        read(DataSource("owner/name"))
    assert caught.value.fix == "pip install datasets"


def test_planted() -> None:
    data = read(DataSource("embedded/planted", split="val", rows=20, bias="none"), seed=3)
    expected = planted("val", rows=20, seed=3, bias="none")
    assert [(row.chosen, row.rejected, row.gold, row.candidates, row.gold_choice) for row in data.rows] == [
        (each.chosen, each.rejected, each.gold, each.candidates, each.gold_choice) for each in expected
    ]
    assert data.rows[7].pair == 7
    assert data.rows[7].prompt == (Message("user", expected[7].prompt),)
    assert data.counts == {"read": 20, "kept": 20}


@pytest.mark.parametrize(("skip", "rows"), [(0, 5), (7, 5), (0, 10_000), (995, 10), (3, None)])
def test_planted_rows_are_those_of_the_whole_split(skip: int, rows: int | None) -> None:
    whole = read(DataSource("embedded/planted", split="val")).rows
    part = read(DataSource("embedded/planted", split="val", rows=rows, skip=skip))
    assert tuple(part.rows) == tuple(whole[skip:])[:rows]
    assert part.counts["kept"] == len(part.rows)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (DataSource("embedded/planted"), "no split was named"),
        (DataSource("embedded/planted", split="vla"), "Did you mean val"),
        (DataSource("embedded/planted", split="val", bias="huge"), "unknown bias 'huge'"),
        (DataSource("embedded/other", split="val"), "no such embedded set"),
    ],
)
def test_planted_errors(source: DataSource, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(source)


def test_ranges_of_prompts_part_a_file_by_prompt(jsonl: Write) -> None:
    rows = [pair(prompt=f"Say {number % 40}.", chosen=f"good {number}") for number in range(120)]
    source = jsonl(*rows)
    parts = [read(replace(source, prompts=ends)) for ends in ((0.0, 0.5), (0.5, 0.8), (0.8, 1.0))]
    prompts = [{row.prompt for row in part.rows} for part in parts]
    assert sum(map(len, prompts)) == len(set.union(*prompts)) == 40
    assert sum(len(part.rows) for part in parts) == 120
    assert len(parts[0].rows) > len(parts[1].rows) > 0
    assert parts[0].counts == {
        "read": 120,
        "kept": len(parts[0].rows),
        "prompts of another part": 120 - len(parts[0].rows),
    }
    again = read(replace(jsonl(*reversed(rows), name="turned.jsonl"), prompts=(0.0, 0.5)))
    assert {row.prompt for row in again.rows} == prompts[0], "whatever the order of rows"
    first = read(replace(source, prompts=(0.0, 0.5), skip=1, rows=20))
    assert [row.pair for row in first.rows] == [row.pair for row in parts[0].rows if 1 <= row.pair <= 20]
