"""What the page holds; what it does with it is tested in a browser."""

from __future__ import annotations

import doctest
from dataclasses import replace

import pytest

from align_bench.records import CellId, Estimate, Generation
from align_bench.report.cells import Cell
from align_bench.report.render import examples, html
from align_bench.report.render.examples import examples_of
from align_bench.report.render.html import sort_key
from align_bench.report.tables.values import Interval, Number, Spread, Value
from tests.report.conftest import BASE, DPO, SIMPO, answer, outcome


def test_doctests() -> None:
    assert doctest.testmod(html).failed == 0


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (Number(754.0, "12 min 34 s"), "754.0"),
        (Number(3, "3"), "3.0"),
        (Number(None, "n/a"), ""),
        (Spread(Estimate(0.1 + 0.2, 0.2, 0.4)), "0.30000000000000004"),
        (Spread(Estimate(None)), ""),
        (Interval(-0.5, 0.25), "-0.5"),
        ("3 of 6", None),
    ],
)
def test_rows_are_sorted_by_numbers_in_full(value: Value, key: str | None) -> None:
    assert sort_key(value) == key


def answering(cell: CellId, *answers: Generation) -> Cell:
    return Cell(outcome(cell, "base" if cell == BASE else "policy"), (), answers)


def scored(cell: CellId, prompt: int) -> Generation:
    return replace(answer(cell, prompt), scores={"gold": 1.0, "rm": 2.0}, proxies={"rm": 3.0})


def test_examples_hold_every_score_and_gold_last() -> None:
    found = examples_of([answering(DPO, scored(DPO, 0)), answering(BASE, answer(BASE, 0, 0.5), answer(BASE, 1, 0.5))])
    assert found is not None
    assert found.judges == found.data["judges"] == ["rm", "reward: rm", "gold"]
    assert (found.policies, found.cells) == (["dpo"], ["base", "dpo"])
    known = {"text": "Yes it is.", "tokens": 4, "finished": True}
    assert found.data["answers"] == {
        "base": [[{**known, "scores": [0.5, None, None]}], [{**known, "scores": [0.5, None, None]}]],
        "dpo": [[{**known, "scores": [2.0, 3.0, 1.0]}], []],
    }
    assert found.remark == "2 prompts, all that were answered."


def test_examples_begin_with_what_is_compared() -> None:
    cells = [answering(cell, answer(cell, 0, 1.0)) for cell in (BASE, DPO, SIMPO)]
    found = examples_of(cells, against=(SIMPO, DPO))
    assert found is not None
    assert (found.policies, found.cells) == (["simpo", "dpo"], ["dpo", "base", "simpo"])


def test_examples_are_whole_prompts_as_far_as_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "MAX_TEXT", 25)
    monkeypatch.setattr(examples, "MAX_ANSWER", 8)
    found = examples_of([answering(DPO, *(answer(DPO, prompt, 1.0) for prompt in range(4)))])
    assert found is not None
    assert found.data["prompts"] == ["?", "?"]
    assert found.data["answers"] == {
        "dpo": [[{"text": "Yes it i", "tokens": 4, "finished": True, "scores": [1.0], "left": 2}]] * 2
    }
    assert found.remark == "The first 2 of 4 prompts; the others are in generations.jsonl."


def test_no_answers_are_no_examples() -> None:
    assert examples_of([answering(BASE)]) is None
