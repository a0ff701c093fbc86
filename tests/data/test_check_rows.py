"""What is looked for in rows before training: sides of labels, shared prompts, another origin."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from align_bench.data.check_rows import (
    Sides,
    distance,
    distance_of_halves,
    label_sides,
    prompts_in,
)
from align_bench.data.preferences import DataSource, read
from align_bench.records import PreferenceSet, TokenRow

NAMES = {"question": "q", "response_1": "a", "response_2": "b", "overall_response": "better"}


def numbered(path: Path, labels: list[int], names: dict[str, str] | None = None) -> DataSource:
    names = names or {name: name for name in NAMES}
    rows = [
        dict(zip(names.values(), (f"question {place}?", f"yes {place}", f"no {place}", label), strict=True))
        for place, label in enumerate(labels)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return DataSource(str(path))


def sides(source: DataSource) -> Sides | None:
    return label_sides(read(source))


def written(path: Path, rows: list[dict[str, object]]) -> PreferenceSet:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read(DataSource(str(path)))


def test_the_place_of_the_preferred_answer(tmp_path: Path) -> None:
    assert sides(numbered(tmp_path / "rows.jsonl", [1, 2, 1, 1])) == Sides(4, 3)
    assert sides(numbered(tmp_path / "rows.jsonl", [2, 2])) == Sides(2, 0)


def test_columns_of_other_names(tmp_path: Path) -> None:
    source = numbered(tmp_path / "rows.jsonl", [1, 2, 1], NAMES)
    assert sides(DataSource(source.path, columns=NAMES)) == Sides(3, 2)


def test_only_the_rows_that_are_used_count(tmp_path: Path) -> None:
    source = numbered(tmp_path / "rows.jsonl", [2, 2, 1, 1, 1, 2])
    assert sides(DataSource(source.path, skip=2, rows=3)) == Sides(3, 3)


def test_a_row_that_is_dropped_shifts_no_other(tmp_path: Path) -> None:
    source = numbered(tmp_path / "rows.jsonl", [1, 2, 7, *[2, 1, 1] * 8])
    assert sides(DataSource(source.path)) == Sides(26, 17)


def test_answers_of_a_public_set_have_a_place_too(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"context": f"{place}?", "response1": "yes", "response2": "no", "overall_preference": strength}
        for place, strength in enumerate([-3, 2, -1, 0, -2])
    ]
    assert label_sides(written(tmp_path / "rows.jsonl", rows)) == Sides(4, 3)


def test_unpaired_labels(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"prompt": f"{place}?", "completion": "x", "label": place < 3} for place in range(4)
    ]
    assert label_sides(written(tmp_path / "rows.jsonl", rows)) == Sides(4, 3)


def test_chosen_and_rejected_have_no_place(tmp_path: Path) -> None:
    pairs = written(tmp_path / "rows.jsonl", [{"prompt": "q", "chosen": "good", "rejected": "bad"}])
    assert label_sides(pairs) is None
    assert label_sides(read(DataSource("embedded/planted", split="val", rows=5))) is None


@pytest.fixture
def rows_of() -> Callable[[int, int, int], list[TokenRow]]:
    """Rows whose tokens are drawn from a range."""

    def made(count: int, low: int, high: int) -> list[TokenRow]:
        rng = Random(low)
        return [
            TokenRow(
                place,
                (low, place // 2),
                tuple(rng.randrange(low, high) for _ in range(30)),
                tuple(rng.randrange(low, high) for _ in range(20)),
            )
            for place in range(count)
        ]

    return made


def test_prompts_that_stand_in_both(rows_of: Callable[[int, int, int], list[TokenRow]]) -> None:
    rows = rows_of(10, 0, 50)
    assert prompts_in(rows, rows[4:]) == 6
    assert prompts_in(rows_of(10, 1, 50), rows) == 0


def test_distance(rows_of: Callable[[int, int, int], list[TokenRow]]) -> None:
    rows = rows_of(400, 0, 40)
    assert distance(rows, rows) == 0
    assert distance(rows_of(400, 40, 80), rows) == pytest.approx(1)
    assert distance(rows_of(400, 20, 60), rows) == pytest.approx(0.5, abs=0.02)
    assert distance(rows_of(400, 1, 40), rows) < 0.05
    assert distance_of_halves(rows) < 0.05


def test_halves_share_no_prompt() -> None:
    one, other = TokenRow(0, (1,), (5,), (6,)), TokenRow(1, (2,), (7,), (8,))
    assert distance_of_halves([one, other, one, other]) == 1
    assert distance_of_halves([one, one]) == 1  # one prompt has no halves, and nothing can be said
