"""Every example of docs/data.md is read from a file as the page says, and the page is what the code writes."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from align_bench.data import known_sets
from align_bench.data.known_sets import KNOWN_SETS, KnownSet
from align_bench.data.preferences import DataSource, read
from align_bench.data.shapes import IMPLIED_CHOICE_SHAPE, SHAPES
from align_bench.data.shapes_page import CELLS, NAMED, STANDARD, Example, known_example, page
from align_bench.errors import DataError
from align_bench.records import Json, Preference

EXAMPLES = (*STANDARD, *NAMED, *CELLS, *map(known_example, KNOWN_SETS))
PAGE = Path(__file__).parents[2] / "docs" / "data.md"
WORDS = ("Seven.", "4", "It is 4.", "**It is 4.**", "Paris.", "hello", "bonne nuit", "A cat sleeps all day.")
RIGHT = (*WORDS, "Air scatters blue light most.", "Run hot water over the lid.", "Nobody knows for sure [1].")


def as_lines(path: Path, row: Mapping[str, Json]) -> DataSource:
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    return DataSource(str(path))


def found(source: DataSource, columns: Mapping[str, str], choice: Mapping[str, str]) -> list[Preference]:
    return list(read(DataSource(source.path, columns=columns, choice=choice)).rows)


def titles(example: Example) -> str:
    return example.title


def test_the_page_is_what_the_code_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "see the docstring of align_bench.data.shapes_page"


def test_every_shape_and_set_has_an_example() -> None:
    read_as = {example.layout().shape for example in EXAMPLES}
    assert read_as == {*SHAPES, IMPLIED_CHOICE_SHAPE}
    assert [example.layout().words for example in map(known_example, KNOWN_SETS)] == [each.words for each in KNOWN_SETS]


@pytest.mark.parametrize("example", EXAMPLES, ids=titles)
def test_an_example_is_read_from_a_file_as_the_page_says(example: Example, tmp_path: Path) -> None:
    rows = found(as_lines(tmp_path / "data.jsonl", example.row), example.columns, example.choice)
    said = [(pair.prompt, pair.chosen, pair.rejected, pair.margin) for pair in example.pairs()]
    assert said == [(row.prompt, row.chosen, row.rejected, row.margin) for row in rows]
    assert rows


@pytest.mark.parametrize("example", EXAMPLES, ids=titles)
def test_the_right_answer_is_the_chosen_one(example: Example) -> None:
    for pair in example.pairs():
        assert pair.chosen is None or pair.chosen in (*RIGHT, "A day or two in the fridge.")
        assert pair.rejected not in RIGHT


@pytest.mark.parametrize("example", EXAMPLES, ids=titles)
def test_parquet_holds_the_same(example: Example, tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist([dict(example.row)]), path)
    assert found(DataSource(str(path)), example.columns, example.choice) == found(
        as_lines(tmp_path / "data.jsonl", example.row), example.columns, example.choice
    )


@pytest.mark.parametrize("known", KNOWN_SETS, ids=lambda known: known.name)
@pytest.mark.parametrize("write", [json.dumps, repr], ids=["JSON", "Python"])
def test_a_public_set_that_went_through_csv_is_the_same(known: KnownSet, write: object, tmp_path: Path) -> None:
    assert callable(write)
    path = tmp_path / "data.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        cells = [write(cell) if isinstance(cell, list | dict) else cell for cell in known.example.values()]
        csv.writer(file).writerows([list(known.example), cells])
    data = read(DataSource(str(path)))
    assert data.shape == known.words
    assert list(data.rows) == found(as_lines(tmp_path / "data.jsonl", known.example), {}, {})


PLAIN = [known for known in KNOWN_SETS if known.adapt is None and not known.lists]


@pytest.mark.parametrize("known", PLAIN, ids=lambda known: known.name)
def test_the_mapping_alone_reads_the_same(known: KnownSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = as_lines(tmp_path / "data.jsonl", known.example)
    rows = found(source, {}, {})
    monkeypatch.setattr(known_sets, "KNOWN_SETS", ())
    assert found(source, known.names, known.choice) == rows


@pytest.mark.parametrize("known", KNOWN_SETS, ids=lambda known: known.name)
def test_a_set_without_one_of_its_columns_is_not_that_set(known: KnownSet, tmp_path: Path) -> None:
    for column in known.columns:
        row = {name: cell for name, cell in known.example.items() if name != column}
        try:
            data = read(as_lines(tmp_path / "data.jsonl", row))
        except DataError:
            continue
        assert not data.shape.startswith(f"{known.name}:")


def test_sets_of_few_columns_need_to_be_just_these(tmp_path: Path) -> None:
    for known in KNOWN_SETS:
        if known.only:
            data = read(as_lines(tmp_path / "data.jsonl", {**known.example, "extra": 1}))
            assert data.shape == known.shape.words
            assert data.unread[-1] == "extra"


def test_a_standard_column_of_its_own_makes_it_another_file(tmp_path: Path) -> None:
    row = {"instruction": "Be brief.", "input": "x", "prompt": "Name a prime.", "chosen": "Seven.", "rejected": "Nine."}
    data = read(as_lines(tmp_path / "data.jsonl", row))
    assert data.shape == "prompt + chosen + rejected"
    assert [turn.content for turn in data.rows[0].prompt] == ["Name a prime."]
    assert data.unread == ("instruction", "input")


def test_what_the_user_says_of_a_public_set_goes_first(tmp_path: Path) -> None:
    known = next(each for each in KNOWN_SETS if each.name == "PKU-SafeRLHF")
    source = as_lines(tmp_path / "data.jsonl", {**known.example, "safer_response_id": 1})
    assert [row.chosen_first for row in found(source, {}, {})] == [True]
    safer = {"overall_response": "safer_response_id"}
    with pytest.raises(DataError, match="the column 'safer_response_id' holds 1"):
        found(source, safer, {"0": "response_0"})
    assert [row.chosen_first for row in found(source, safer, {"0": "response_0", "1": "response_1"})] == [False]
    assert [row.chosen_first for row in found(source, {}, {"0": "response_1", "1": "response_0"})] == [False]
