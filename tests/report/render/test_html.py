"""What the page holds; what it does with it is tested in a browser."""

from __future__ import annotations

import doctest
from dataclasses import replace

import pytest

from align_bench.records import CellId, Estimate, Generation
from align_bench.report.cells import Cell
from align_bench.report.provenance import compared
from align_bench.report.render import examples, html
from align_bench.report.render.examples import examples_of
from align_bench.report.render.html import render_page, sort_key
from align_bench.report.schema import BaseFacts, DataFacts, SuiteFacts
from align_bench.report.tables.values import Interval, Number, Spread, Value
from tests.report.conftest import BASE, DPO, HOSTILE, RM, RM_FAST, SIMPO, Run, answer, outcome


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
    cells = [answering(DPO, scored(DPO, 0)), answering(BASE, answer(BASE, 0, 0.5), answer(BASE, 1, 0.5))]
    found = examples_of(cells, gold={1: "No.", 2: "Yes."})
    assert found is not None
    assert found.judges == found.data["judges"] == ["rm", "reward: rm", "gold"]
    assert (found.policies, found.cells) == (["dpo"], ["base", "dpo"])
    assert found.data["right"] == [None, "No."]
    assert found.data["ids"] == [0, 1]
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


def test_examples_are_called_by_what_tells_cells_apart() -> None:
    cells = [answering(cell, answer(cell, 0, 1.0)) for cell in (BASE, RM, RM_FAST)]
    found = examples_of(cells)
    assert found is not None
    assert found.data["cells"] == [
        {"name": "base", "label": "base"},
        {"name": str(RM), "label": "rm lr 1e-05"},
        {"name": str(RM_FAST), "label": "rm lr 2e-05"},
    ]


def test_what_was_compared_is_one_sentence(run: Run) -> None:
    header = run.header.model_copy(
        update={
            "base": BaseFacts(name="embedded/tiny", digest="d", precision="float32"),
            "data": {"train": DataFacts(shape="", read={}, tokens={"kept": 2000, "truncated": 3})},
            "suite": SuiteFacts(name="", state="", settings={"data": {"train": {"path": "embedded/planted"}}}),
        }
    )
    outcomes = [one for one in run.outcomes if one.cell != CellId(HOSTILE)]
    kept = {str(one.cell) for one in outcomes}
    report = replace(
        run,
        header=header,
        outcomes=outcomes,
        scores=[row for row in run.scores if row.cell in kept],
        generations=[one for one in run.generations if one.cell in kept],
    ).report()
    assert compared(report) == (
        "3 methods (rm, dpo, simpo) in 4 settings on embedded/tiny, trained on 2,000 pairs of embedded/planted, one "
        "seed; judged by rm and gold on the answers to 40 prompts."
    )


def test_an_old_report_without_a_day_is_shown_without_one(run: Run) -> None:
    report = run.report()
    assert report.made is None
    assert "<time" not in render_page(report, [], [])
    assert "<time" in render_page(report.model_copy(update={"made": "2025-06-01"}), [], [])


def test_no_answers_are_no_examples() -> None:
    assert examples_of([answering(BASE)]) is None
