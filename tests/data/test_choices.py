"""Label and choice columns: looked at before they are believed, refused with a line that works when it is pasted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from align_bench.data.choices import Choice, line, parsed, value_text
from align_bench.data.preferences import DataSource, read
from align_bench.errors import DataError
from align_bench.records import Json
from align_bench.suite.models import DataFile

Rows = list[dict[str, Json]]
Write = Callable[[Rows], DataSource]
NAMES = {"question": "ask", "response_1": "left", "response_2": "right", "overall_response": "vote"}


@pytest.fixture
def written(tmp_path: Path) -> Write:
    def write(rows: Rows) -> DataSource:
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return DataSource(str(path))

    return write


def voted(values: list[Json], **names: str) -> Rows:
    called = {name: name for name in NAMES} | names
    return [
        dict(zip(called.values(), (f"q {place}", f"first {place}", f"second {place}", value), strict=True))
        for place, value in enumerate(values)
    ]


def labelled(values: list[Json]) -> Rows:
    return [{"prompt": f"q {place}", "completion": "a", "label": value} for place, value in enumerate(values)]


def pasted(fix: str | None) -> dict[str, Any]:
    """What the lines of a fix say, once they are in a data entry of a suite."""
    said: dict[str, Any] = {}
    for entry in re.findall(r"`((?:columns|choice): [^`]*)`", fix or ""):
        said |= yaml.safe_load(entry)
    entry_of = DataFile(path="data.jsonl", **said)
    return {"columns": entry_of.columns, "choice": entry_of.choice}


def firsts(source: DataSource) -> list[bool | None]:
    return [row.chosen_first for row in read(source).rows]


@pytest.mark.parametrize(
    ("values", "right"),
    [
        ([0, 1, 1, 0], [True, False, False, True]),
        (["model_1", "model_2", "tie"], [True, False]),
        (["a", "B", "a"], [True, False, True]),
        (["left", "right"], [True, False]),
        (["response_1", "response_2", "both"], [True, False]),
        ([-3, -2, -1, 0, 1, 2, 3], [True, True, True, False, False, False]),
        ([-0.5, 0.25, 0.0], [True, False]),
        ([1, 2, 0, 0], [True, False]),
        (["first", "second"], [True, False]),
    ],
)
def test_a_choice_that_does_not_fit_is_refused_with_a_line_that_does(
    written: Write, values: list[Json], right: list[bool]
) -> None:
    source = written(voted(values))
    with pytest.raises(DataError, match=r"the column 'overall_response' holds .* expected 1 or 2") as caught:
        read(source)
    for value in values:
        assert value_text(value) in caught.value.message
    mended = replace(source, **pasted(caught.value.fix))
    assert firsts(mended) == right
    ties = len(values) - len(right)
    assert read(mended).counts.get("dropped: tie", 0) == ties


def test_values_without_a_known_meaning_are_left_to_the_user(written: Write) -> None:
    source = written(voted(["x", "y", "z"]))
    with pytest.raises(DataError) as caught:
        read(source)
    assert "choice: {x: ANSWER" in (caught.value.fix or "")
    assert "response_1, response_2, drop" in (caught.value.fix or "")
    mended = replace(source, choice={"x": "response_2", "y": "a", "z": "drop"})
    assert firsts(mended) == [False, True]


def test_many_values_are_not_all_listed(written: Write) -> None:
    with pytest.raises(DataError, match="and 28 other values"):
        read(written(voted([f"v{place}" for place in range(40)])))


def test_a_few_other_values_are_dropped_and_many_refuse_the_file(written: Write) -> None:
    good: list[Json] = [1, 2] * 30
    assert read(written(voted([*good, 0, 3]))).counts["dropped: choice not 1 or 2"] == 2
    assert read(written(voted([*good, *[None] * 60]))).counts["dropped: choice not 1 or 2"] == 60
    with pytest.raises(DataError, match="0 "):
        read(written(voted([*good, 0, 0, 0, 3])))


def test_the_users_choice_is_held_to_the_file_as_well(written: Write) -> None:
    source = written(voted(["m", "n", "o", "m"]))
    with pytest.raises(DataError, match="expected those that `choice` names"):
        read(replace(source, choice={"m": "a", "n": "b"}))
    with pytest.raises(DataError, match="expected one of response_1, response_2, a, b, drop"):
        read(replace(source, choice={"m": "third"}))
    with pytest.raises(DataError, match="expected a comparison such as"):
        read(replace(source, choice={"> x": "a"}))


def test_a_choice_that_nothing_is_about_is_refused(written: Write) -> None:
    source = written([{"prompt": "q", "chosen": "a", "rejected": "b"}])
    with pytest.raises(DataError, match="have no column that it is about"):
        read(replace(source, choice={"1": "a", "2": "b"}))


def test_the_size_of_a_signed_choice_is_the_margin(written: Write) -> None:
    source = replace(written(voted([-3, 2, 0])), choice={"<0": "a", "0": "drop", ">0": "b"})
    assert [row.margin for row in read(source).rows] == [3.0, 2.0]
    named = replace(written(voted([-3, 2])), choice={"-3": "a", "2": "b"})
    assert [row.margin for row in read(named).rows] == [None, None]


def test_a_column_for_each_outcome(written: Write) -> None:
    outcomes: list[list[Json]] = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0], [True, False, "0"]]
    rows: Rows = [
        {"question": f"q {place}", "response_1": "x", "response_2": "y", "one": a, "two": b, "tie": c}
        for place, (a, b, c) in enumerate(outcomes)
    ]
    source = replace(written(rows), choice={"one": "response_1", "two": "response_2", "tie": "drop"})
    assert firsts(source) == [True, False, True]
    assert read(source).counts == {"read": 6, "kept": 3, "dropped: not one winner": 2, "dropped: tie": 1}


def test_a_column_whose_values_are_names_of_columns_is_no_outcome(written: Write) -> None:
    source = written(voted(["response_1", "response_2", "response_2"]))
    named = replace(source, choice={"response_1": "response_1", "response_2": "response_2"})
    assert firsts(named) == [True, False, False]


@pytest.mark.parametrize(
    ("values", "right"),
    [
        ([1, -1, 1], [True, False, True]),
        (["1", "-1.0"], [True, False]),
        (["desirable", "Undesirable"], [True, False]),
        ([True, "false"], [True, False]),
    ],
)
def test_labels_that_can_mean_one_thing_only(written: Write, values: list[Json], right: list[bool]) -> None:
    assert [row.chosen is not None for row in read(written(labelled(values))).rows] == right


@pytest.mark.parametrize(
    ("values", "right"),
    [
        ([1, 0, -1, 1, -1], [True, False, True, False]),
        (["good", "bad"], [True, False]),
        (["yes", "no", "no"], [True, False, False]),
    ],
)
def test_other_labels_are_refused_with_a_line_that_fits(written: Write, values: list[Json], right: list[bool]) -> None:
    source = written(labelled(values))
    with pytest.raises(DataError, match=r"the column 'label' holds .* expected true or false") as caught:
        read(source)
    assert [row.chosen is not None for row in read(replace(source, **pasted(caught.value.fix))).rows] == right


def test_graded_labels_need_a_threshold_of_the_users(written: Write) -> None:
    source = written(labelled([1, 2, 3, 4, 5]))
    with pytest.raises(DataError) as caught:
        read(source)
    assert "threshold N" in (caught.value.fix or "")
    assert not re.search(r"[<>]=?\d", caught.value.fix or ""), "no threshold is proposed"
    graded = read(replace(source, choice={">=4": "desirable", "<3": "undesirable", "3": "drop"}))
    assert [row.chosen is not None for row in graded.rows] == [False, False, True, True]
    assert graded.counts["dropped: choice '3'"] == 1
    with pytest.raises(DataError, match="expected one of desirable, undesirable, drop"):
        read(replace(source, choice={">=4": "response_1"}))


@pytest.mark.parametrize(
    ("values", "right"),
    [
        ([1, 2, 1], [True, False, True]),
        ([0, 1, 1], [True, False, False]),
        (["model_a", "model_b", "tie"], [True, False]),
        ([-1, 2, 0], [True, False]),
    ],
)
def test_columns_are_proposed_with_the_choice_that_fits_them(
    written: Write, values: list[Json], right: list[bool]
) -> None:
    source = written(
        voted(values, question="query", response_1="answer_a", response_2="answer_b", overall_response="choice")
    )
    with pytest.raises(DataError, match="no known shape") as caught:
        read(source)
    assert firsts(replace(source, **pasted(caught.value.fix))) == right


def test_winner_columns_are_proposed(written: Write) -> None:
    rows: Rows = [
        {
            "prompt": f"q {n}",
            "answer_a": "x",
            "answer_b": "y",
            "won_a": n % 3 == 0,
            "won_b": n % 3 == 1,
            "won_tie": n % 3 == 2,
        }
        for n in range(6)
    ]
    source = written(rows)
    with pytest.raises(DataError, match="no known shape") as caught:
        read(source)
    assert firsts(replace(source, **pasted(caught.value.fix))) == [True, False] * 2


def test_columns_whose_values_do_not_bear_them_out_are_not_proposed(written: Write) -> None:
    rows = voted(["x", "y"], question="query", response_1="answer_a", response_2="answer_b", overall_response="choice")
    with pytest.raises(DataError) as caught:
        read(written(rows))
    assert "choice: {x: ANSWER" in (caught.value.fix or "")
    unusable: Rows = [{"prompt": 1, "better": 2, "worse": 3}] * 3
    with pytest.raises(DataError) as caught:
        read(written(unusable))
    assert "columns: {prompt: COLUMN, chosen: COLUMN, rejected: COLUMN}" in (caught.value.fix or "")


def test_unknown_columns_are_taken_for_the_plainest_shape(written: Write) -> None:
    with pytest.raises(DataError, match="no known shape") as caught:
        read(written([{"text": "q", "foo": "a"}]))
    assert "for example `columns: {prompt: COLUMN, chosen: COLUMN, rejected: COLUMN}`" in (caught.value.fix or "")


def test_a_prompt_of_another_name_is_proposed_once_it_is_tried(written: Write) -> None:
    source = written([{"instruction": f"q {n}", "chosen": "a", "rejected": "b"} for n in range(3)])
    with pytest.raises(DataError, match="no `prompt` column") as caught:
        read(source)
    assert pasted(caught.value.fix)["columns"] == {"prompt": "instruction"}
    assert len(read(replace(source, **pasted(caught.value.fix))).rows) == 3


@pytest.mark.parametrize(
    "sides", [{"<0": "x y", "tie (bothbad)": "drop"}, {"yes": "a", "-1": "no", "1.5": "b", "true": "ü"}]
)
def test_a_line_is_yaml_that_says_the_same(sides: dict[str, str]) -> None:
    found: Mapping[object, object] = yaml.safe_load(line(sides))
    assert {str(key).lower() if isinstance(key, bool) else str(key): value for key, value in found.items()} == sides


def test_a_suite_takes_keys_as_yaml_has_them() -> None:
    entry = DataFile.model_validate({"path": "x.jsonl", **yaml.safe_load("choice: {0: a, true: b, 2.5: drop}")})
    assert entry.choice == {"0": "a", "true": "b", "2.5": "drop"}
    choice = parsed(entry.choice, ("x", "y"), "")
    assert [choice.side(value) for value in (0, "0.0", True, 2.5, 1, None)] == ["a", "a", "b", "drop", None, None]


def test_comparisons() -> None:
    choice = Choice({">=4": "a", "< 2": "b", "3": "drop"}, "unfit")
    assert [choice.side(value) for value in (4, "5", 3, 2, 1.9, float("nan"), True)] == [
        "a", "a", "drop", None, "b", None, None,
    ]  # fmt: skip
