"""The section on data: a row per split, and a line of advice for each thing that is wrong."""

from __future__ import annotations

import pytest

from align_bench.report.schema import CheckedRows, DataFacts, ExaminedRows, Report
from align_bench.report.tables.data import data_sets
from tests.report.conftest import Run

SOUND = ExaminedRows(
    rows=200,
    duplicates=0,
    near_duplicates=0,
    contradictions=0,
    repeated_prompts=50,
    pairs=200,
    longer_preferred=90,
    equally_long=10,
    prompt_words=12.0,
    chosen_words=30.5,
    rejected_words=28.0,
    scripts={"Latin": 199, "Han": 1},
)


def with_data(report: Report, **examined: ExaminedRows | None) -> Report:
    data = {
        split: DataFacts(
            shape="pairs",
            read={"read": 203, "dropped: equal answers": 2},
            tokens={"kept": 200, "truncated": 4, "dropped: longer than 9 tokens": 1},
            checked=CheckedRows(labels=200, labels_first=50),
            examined=found,
        )
        for split, found in examined.items()
    }
    return report.model_copy(update={"data": data})


@pytest.fixture
def report(shared_run: Run) -> Report:
    return shared_run.report()


def advice(report: Report) -> list[str]:
    return list(data_sets(report).captions)[1:]


def test_a_row_per_split(report: Report) -> None:
    section = data_sets(with_data(report, train=SOUND, val=SOUND.model_copy(update={"prompts_in_train": 0})))
    train, val = (
        dict(zip((column.heading for column in section.columns), row, strict=True)) for row in section.texts()
    )
    assert train == {
        "data": "train",
        "rows": "200",
        "dropped": "3",
        "truncated": "4",
        "duplicate pairs": "0",
        "near-duplicate pairs": "0",
        "contradictory pairs": "0",
        "prompts in train": "n/a",
        "prompts in val": "n/a",
        "labels on one side": "25.0%",
        "longer preferred": "47.4%",
        "prompt words": "12.0",
        "chosen words": "30.5",
        "rejected words": "28.0",
        "scripts": "Latin 199, Han 1",
    }
    assert val == {**train, "data": "val", "prompts in train": "0"}
    assert advice(with_data(report, train=SOUND, val=SOUND)) == []


def test_labels_without_sides_are_undefined(report: Report) -> None:
    changed = with_data(report, train=SOUND)
    facts = changed.data["train"].model_copy(update={"checked": CheckedRows()})
    assert "n/a" in data_sets(changed.model_copy(update={"data": {"train": facts}})).texts()[0][9]


def test_reports_from_before_have_no_section(report: Report) -> None:
    assert data_sets(with_data(report, train=None)).rows == []


@pytest.mark.parametrize(
    ("split", "problem", "said"),
    [
        ("train", {"duplicates": 3}, "train: duplicate pairs: 3, 1.5% of its rows: a copy counts once more"),
        ("train", {"near_duplicates": 2}, "train: near-duplicate pairs: 2, 1.0% of its rows: look at some"),
        ("judge", {"contradictions": 4}, "judge: contradictory pairs: 4, 2.0% of its rows: nothing can learn both"),
        ("val", {"prompts_in_train": 7}, "val: rows that share a prompt with train: 7: a prompt in both"),
        ("test", {"prompts_in_train": 7}, "test: rows that share a prompt with train: 7:"),
        ("judge2", {"prompts_in_val": 7}, "judge2: rows that share a prompt with val: 7:"),
        ("val", {"longer_preferred": 150}, "val: the longer answer is preferred in 78.9%"),
    ],
)
def test_what_is_wrong_comes_with_a_line_of_advice(
    report: Report, split: str, problem: dict[str, int], said: str
) -> None:
    (line,) = advice(with_data(report, **{split: SOUND.model_copy(update=problem)}))
    assert line.startswith(said)


@pytest.mark.parametrize(("split", "shared"), [("train", "prompts_in_val"), ("judge", "prompts_in_train")])
def test_what_is_said_of_one_split_is_not_said_of_the_other(report: Report, split: str, shared: str) -> None:
    assert advice(with_data(report, **{split: SOUND.model_copy(update={shared: 7})})) == []
