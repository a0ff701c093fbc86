"""Cells in all the forms that public files have, and what stands beside a row's answers; the same in `score`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from align_bench.data.answers import read_answers
from align_bench.data.fields import DropError
from align_bench.data.known_sets import KNOWN_SETS, KnownSet
from align_bench.data.layout import layout_of
from align_bench.data.preferences import DataSource, read
from align_bench.data.shapes import OPTIONAL, SHAPES, Shape
from align_bench.data.tables import Table
from align_bench.data.written import written_list
from align_bench.errors import DataError
from align_bench.records import Conversation, Json, Message, Preference

Row = dict[str, Json]
Write = Callable[..., DataSource]
ASKED: Row = {"role": "user", "content": "Why?"}
GOOD: Row = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}


@pytest.fixture
def jsonl(tmp_path: Path) -> Write:
    def write(*rows: Row) -> DataSource:
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return DataSource(str(path))

    return write


def turn(role: str, content: Json, **others: Json) -> Row:
    return {"role": role, "content": content, **others}


def only(source: DataSource) -> Preference:
    (row,) = read(source).rows
    return row


def texts(row: Preference) -> list[tuple[str, str]]:
    return [(each.role, each.content) for each in row.prompt]


TEXT: Row = {"type": "text", "text": "Why?"}
SO = turn("assistant", "So.")


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": [turn("user", [TEXT])]},
        {"prompt": [turn("user", [{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?"}])]},
        {"prompt": [turn("user", ["Why?"])]},
        {"prompt": [turn("user", [{"text": "Why?", "type": None, "image": None}])]},
        {"prompt": [{"from": "human", "value": "Why?"}]},
        {"prompt": [{"role": None, "content": None, "from": "human", "value": "Why?"}]},
        {"prompt": [turn("Human", "Why?")]},
        {"prompt": {"role": ["user"], "content": ["Why?"]}},
        {"prompt": {"from": ["human"], "value": ["Why?"]}},
        {"prompt": ASKED},
        {"chosen": SO},
        {"chosen": {"from": "gpt", "value": "So."}},
        {"chosen": [turn("Assistant", [{"type": "text", "text": "So."}])]},
        {"chosen": ["So."]},
        {"chosen": {"role": ["user", "assistant"], "content": ["Why?", "So."]}},
    ],
)
def test_forms_of_a_cell(jsonl: Write, changes: Row) -> None:
    source = jsonl(GOOD | changes)
    row = only(source)
    assert (texts(row), row.chosen, row.rejected) == ([("user", "Why?")], "So.", "No.")
    scored = read_answers(Path(source.path))
    expected = [None if "chosen" in changes and changes["chosen"] == ["So."] else Conversation(row.prompt, "So.")]
    assert scored.answers["chosen"] == expected


CALL: Row = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {}}}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prompt": [turn("user", [{"type": "image"}, TEXT])]}, "image"),
        ({"prompt": [turn("user", [{"type": "image_url", "image_url": {"url": "x"}}, TEXT])]}, "image"),
        ({"prompt": [turn("user", [{"type": "input_audio"}, TEXT])]}, "audio"),
        ({"prompt": [turn("user", [{"type": "refusal"}, TEXT])]}, "content part 'refusal'"),
        ({"images": ["a.png"]}, "image"),
        ({"videos": ["a.mp4"]}, "video"),
        ({"prompt": [ASKED, turn("assistant", "", tool_calls=[CALL]), turn("tool", "4"), ASKED]}, "tool calls"),
        ({"prompt": [ASKED, turn("assistant", None, tool_calls=[CALL]), turn("tool", "4"), ASKED]}, "tool calls"),
        ({"prompt": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "b"}]}, "tool calls"),
        ({"prompt": {"role": ["assistant", "user"], "content": ["", "b"], "tool_calls": [[CALL], []]}}, "tool calls"),
        ({"tools": [CALL]}, "tool calls"),
        ({"tools": json.dumps([CALL])}, "tool calls"),
        ({"prompt": {"role": ["user", "user"], "content": ["Why?"]}}, "turn without role and content"),
        ({"prompt": {"text": "Why?"}}, "turn without role and content"),
        ({"system": "Be kind.", "prompt": [turn("system", "Be terse."), ASKED]}, "two system texts"),
        ({"margin": "much"}, "score is not a number"),
        ({"score_chosen": "inf", "score_rejected": 1}, "score is not a number"),
        ({"score_chosen": 3, "score_rejected": 3}, "tie"),
        ({"rejected": []}, "empty response"),
    ],
)
def test_a_row_that_cannot_be_read_whole_is_dropped_by_name(jsonl: Write, changes: Row, reason: str) -> None:
    source = jsonl(GOOD, GOOD | changes, GOOD)
    data = read(source)
    assert data.counts == {"read": 3, "kept": 2, f"dropped: {reason}": 1}
    assert [row.pair for row in data.rows] == [0, 2]
    if not {"margin", "score_chosen"} & changes.keys():  # which are of pairs
        assert read_answers(Path(source.path)).dropped.keys() == {reason}


def test_what_stands_beside_and_says_nothing_changes_nothing(jsonl: Write) -> None:
    beside: Row = {"system": "", "tools": "[]", "images": [], "margin": None, "score_chosen": None}
    assert only(jsonl(GOOD | beside)) == only(jsonl(GOOD))
    empty = turn("user", "Why?", tool_calls=None, name=None)
    assert read(jsonl(GOOD | {"prompt": [empty]})).unread_keys == ()


def test_a_system_text_goes_first(jsonl: Write) -> None:
    row = only(jsonl(GOOD | {"system": "Be kind."}))
    assert texts(row) == [("system", "Be kind."), ("user", "Why?")]
    whole: Row = {"system": "Be kind.", "chosen": [ASKED, SO], "rejected": [ASKED, turn("assistant", "No.")]}
    assert texts(only(jsonl(whole))) == texts(row)
    same = GOOD | {"system": "Be kind.", "prompt": [turn("system", "Be kind."), ASKED]}
    assert texts(only(jsonl(same))) == texts(row)
    unpaired: Row = {"system": "Be kind.", "prompt": "Why?", "completion": "So.", "label": True}
    assert texts(only(jsonl(unpaired))) == texts(row)
    named = replace(jsonl(GOOD | {"rules": "Be kind."}), columns={"system": "rules"})
    assert texts(only(named)) == texts(row)


def test_an_input_and_earlier_turns_belong_to_an_instruction(jsonl: Write) -> None:
    row: Row = {"instruction": "Translate:", "input": "oui", "chosen": "yes", "rejected": "no"}
    assert texts(only(jsonl(row))) == [("user", "Translate:\noui")]
    assert texts(only(jsonl(row | {"input": ""}))) == [("user", "Translate:")]
    earlier: Row = {"system": "Be kind.", "history": [["Hi", "Hello"]]}
    assert texts(only(jsonl(row | earlier))) == [
        ("system", "Be kind."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Translate:\noui"),
    ]
    beside_a_prompt = read(jsonl(GOOD | {"input": "oui", "history": [["Hi", "Hello"]]}))
    assert texts(beside_a_prompt.rows[0]) == [("user", "Why?")]
    assert beside_a_prompt.unread == ("input", "history")


def test_score_reads_the_prompt_as_training_does(jsonl: Write) -> None:
    rows: list[Row] = [
        {"system": "Be kind.", "question": "Why?", "chosen": "So.", "rejected": "No."},
        {"instruction": "Translate:", "input": "oui", "chosen": "yes", "rejected": "no"},
        {"context": [ASKED], "response1": "So.", "response2": "No.", "overall_preference": -1},
        {"prompt": '["Why?"]', "response_a": '["So."]', "response_b": '["No."]'}
        | {"winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0},
    ]
    for row in rows:
        source = jsonl(row)
        pair = only(source)
        first, second = read_answers(Path(source.path)).answers.values()
        assert first == [Conversation(pair.prompt, str(pair.chosen))]
        assert second == [Conversation(pair.prompt, str(pair.rejected))]
    single = read_answers(Path(jsonl({"instruction": "Translate:", "input": "oui", "output": "yes"}).path))
    assert single.answers["output"] == [Conversation((Message("user", "Translate:\noui"),), "yes")]


def test_what_is_not_read_is_listed(jsonl: Write) -> None:
    row = GOOD | {"id": 7, "image": "x", "prompt": [turn("user", "Why?", weight=0, name="Bo", empty=[])]}
    data = read(jsonl(row, row))
    assert (data.unread, data.unread_keys) == (("id", "image"), ("name", "weight"))
    assert read(DataSource("embedded/planted", split="val", rows=2)).unread == ()


def test_several_answers_are_pairs_of_one_prompt(jsonl: Write) -> None:
    data = read(
        jsonl(GOOD | {"rejected": ["a", "b"]}, GOOD | {"chosen": ["c", "d"], "rejected": ["e", "c", " "]}, GOOD)
    )
    assert [(row.pair, row.chosen, row.rejected) for row in data.rows] == [
        (0, "So.", "a"),
        (1, "So.", "b"),
        (2, "c", "e"),
        (5, "d", "e"),
        (6, "d", "c"),
        (8, "So.", "No."),
    ]
    assert data.counts == {"read": 9, "kept": 6, "dropped: empty response": 2, "dropped: equal answers": 1}
    assert len({row.prompt for row in data.rows}) == 1


def test_margins(jsonl: Write) -> None:
    rows: list[Row] = [
        {"margin": 0.5},
        {"margin": "2"},
        {"score_chosen": 9, "score_rejected": 4.5},
        {"score_chosen": 9},
        {},
    ]
    assert [row.margin for row in read(jsonl(*(GOOD | row for row in rows))).rows] == [0.5, 2.0, 4.5, None, None]


# -- lists that a file of texts holds ----------------------------------------------------------------------------------


def csv_of(path: Path, *rows: dict[str, str]) -> DataSource:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return DataSource(str(path))


TALK = [turn("user", "Isn't \"x\"\n[{'a': 1}]\\d?"), turn("assistant", "So\n{}.")]


@pytest.mark.parametrize("write", [json.dumps, repr])
def test_turns_written_as_text(tmp_path: Path, write: Callable[[object], str]) -> None:
    rows = [{"chosen": write(TALK), "rejected": write([TALK[0], turn("assistant", f"No {n}.")])} for n in range(3)]
    data = read(csv_of(tmp_path / "data.csv", *rows))
    assert [row.chosen for row in data.rows] == ["So\n{}."] * 3
    assert data.rows[2].rejected == "No 2."
    assert texts(data.rows[0]) == [("user", TALK[0]["content"])]


def test_turns_that_pandas_wrote(tmp_path: Path) -> None:
    cells = [np.array([turn("user", "} \n {"), turn("assistant", answer)], dtype=object) for answer in ("a'\"", "b")]
    path = tmp_path / "data.csv"
    pd.DataFrame({"chosen": cells[:1], "rejected": cells[1:]}).to_csv(path, index=False)
    row = only(DataSource(str(path)))
    assert (texts(row), row.chosen, row.rejected) == ([("user", "} \n {")], "a'\"", "b")


def test_a_list_that_was_cut_off_is_no_answer(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "chosen": repr([turn("assistant", f"a {n}")]), "rejected": "b"} for n in range(30)]
    rows[0]["chosen"] = rows[0]["chosen"][:20]
    data = read(csv_of(tmp_path / "data.csv", *rows))
    assert data.counts == {"read": 30, "kept": 29, "dropped: list written as text that cannot be read": 1}
    assert data.rows[0].chosen == "a 1"


def test_lists_of_texts_are_conversations_only_where_the_prompts_are(tmp_path: Path) -> None:
    choice = {"overall_response": "1"}
    talks = {"question": '["a", "c"]', "response_1": '["b", "d"]', "response_2": '["b", "e"]'}
    row = only(csv_of(tmp_path / "talks.csv", talks | choice))
    assert texts(row) == [("user", "a"), ("assistant", "b"), ("user", "c")]
    assert (row.chosen, row.rejected) == ("d", "e")
    uneven = csv_of(tmp_path / "uneven.csv", talks | choice, talks | choice | {"response_1": '["b"]'})
    assert read(uneven).counts["dropped: not as many answers as questions"] == 1
    tags = {"question": "Keywords?", "response_1": '["b", "d"]', "response_2": "[]"}
    row = only(csv_of(tmp_path / "tags.csv", tags | choice))
    assert (row.chosen, row.rejected) == ('["b", "d"]', "[]")


def test_code_and_json_as_answers_stay_verbatim(tmp_path: Path) -> None:
    answers = ["[1, 2]", '{"a": 1}', "{x: y}", "[unclosed", '{"role": "user"}']
    rows = [{"prompt": "q", "chosen": answer, "rejected": "b"} for answer in answers]
    assert [row.chosen for row in read(csv_of(tmp_path / "data.csv", *rows)).rows] == answers


@pytest.mark.parametrize("text", ["", "no", "[", "[1, 2", "__import__('os')", "[x for x in y]", "{'a'}", "[" * 5000])
def test_text_that_writes_no_list(text: str) -> None:
    assert written_list(text) is None


def test_score_reads_written_lists_too(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"prompt": repr([ASKED]), "response": repr([SO])}) + "\n", encoding="utf-8")
    assert read_answers(path).answers == {"response": [Conversation((Message("user", "Why?"),), "So.")]}


def test_plain_text_beside_a_list_of_answers_is_an_error_in_words(jsonl: Write) -> None:
    with pytest.raises(DataError, match="none of its 1 rows can be used: 1 dropped: image"):
        read(jsonl(GOOD | {"images": ["x.png"]}))


TURNS = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "system", "tool", None, 3]),
        "content": st.one_of(st.text(max_size=5), st.none(), st.just([TEXT]), st.just([{"type": "image"}])),
        "from": st.sampled_from(["human", "gpt"]),
        "value": st.text(max_size=5),
        "tool_calls": st.sampled_from([None, [], [CALL]]),
    },
)
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=5))
CELL = st.one_of(PLAIN, TURNS, st.lists(TURNS, max_size=3), st.lists(PLAIN, max_size=3)).flatmap(
    lambda value: st.sampled_from([value, repr(value)])
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.sampled_from([*KNOWN_SETS, *SHAPES]))
def test_no_cell_is_too_odd(drawn: st.DataObject, kind: KnownSet | Shape) -> None:
    """Whatever the cells hold, a row is read or dropped under a reason, or the file is refused in words."""
    columns = [*kind.columns, *drawn.draw(st.sets(st.sampled_from(OPTIONAL)))]
    rows = [{column: drawn.draw(CELL) for column in columns} for _ in range(2)]
    table = Table(tuple(dict.fromkeys(columns)), lambda _: rows)
    try:
        layout = layout_of(DataSource("drawn"), table)
    except DataError:
        return
    for row in rows:
        try:
            pairs = list(layout.read(row))
        except (DropError, DataError):
            continue
        for pair in pairs:
            assert isinstance(pair, DropError) or pair.prompt[-1].role == "user"
