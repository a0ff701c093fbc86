"""The course's own result files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from align_bench.records import CellId
from align_bench.report.build import build_report
from align_bench.report.course_files import MARKS, marked_by, write_course_files
from align_bench.report.export import write_report
from align_bench.report.schema import Result
from tests.report.conftest import BASE, DPO, RM, header, outcome, score

if TYPE_CHECKING:
    from tests.report.conftest import Run


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take seconds; what they are is tested elsewhere."""
    monkeypatch.setattr("align_bench.report.figures.DRAWN", ())


@pytest.fixture
def folder(run: Run, tmp_path: Path) -> Path:
    write_report(tmp_path, run.report(), run.rows)
    return tmp_path


def test_marks_hold_every_pair_with_its_scores(run: Run, folder: Path) -> None:
    found = json.loads((folder / MARKS).read_bytes())
    rows = [row for row in run.scores if row.cell == str(RM)]
    assert len(found) == len(rows) == 60
    assert list(found[0]) == [
        *("pair", "question", "chosen", "rejected", "chosen_score", "rejected_score", "choice", "correct"),
        *("higher_score", "model"),
    ]
    for mark, row, pair in zip(found, rows, run.pairs, strict=True):
        assert row.chosen_reward is not None
        assert row.rejected_reward is not None
        assert (mark["pair"], mark["question"]) == (pair.pair, pair.prompt)
        assert (mark["chosen"], mark["rejected"]) == (pair.chosen, pair.rejected)
        assert (mark["chosen_score"], mark["rejected_score"]) == (row.chosen_reward, row.rejected_reward)
        assert mark["correct"] == (row.chosen_reward > row.rejected_reward)
        assert mark["choice"] == ("chosen" if mark["correct"] else "rejected")
        assert mark["higher_score"] == max(row.chosen_reward, row.rejected_reward)
        assert mark["model"] == "rm[learning_rate=1e-05]"


def test_files_are_as_json_writes_a_list_with_an_indent_of_one(folder: Path) -> None:
    paths = [folder / MARKS, *folder.glob("Response_of_*.json")]
    assert len(paths) > 2
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert text == json.dumps(json.loads(text), ensure_ascii=False, indent=1) + "\n"


def test_marks_name_ties_and_missing_scores(run: Run, tmp_path: Path) -> None:
    scores = [score(RM, 0, 1.0, 1.0), score(RM, 1, None, 1.0), score(RM, 2, float("inf"), 1.0)]
    write_course_files(tmp_path, run.report(), scores, [], run.pairs[:3])
    found = json.loads((tmp_path / MARKS).read_bytes())
    assert [(one["choice"], one["correct"], one["higher_score"]) for one in found] == [
        ("tie", None, None),
        (None, None, None),
        (None, None, None),
    ]
    assert found[2]["chosen_score"] is None


def test_responses_stand_beside_those_of_the_base(run: Run, folder: Path) -> None:
    found = json.loads((folder / "Response_of_DPO_n_Ori_val_with_rm.json").read_bytes())
    own = {one.prompt_id: one for one in run.generations if one.cell == "dpo"}
    base = {one.prompt_id: one for one in run.generations if one.cell == "base"}
    assert len(found) == len(own) == 40
    for row in found:
        one, other = own[row["prompt_id"]], base[row["prompt_id"]]
        assert (row["question"], row["response"], row["score"]) == (one.prompt, one.text, one.scores["rm"])
        assert (row["ori_response"], row["ori_score"]) == (other.text, other.scores["rm"])
        assert (row["judge"], row["model"]) == ("rm", "dpo")


def test_responses_are_scored_by_the_main_judge(run: Run, tmp_path: Path) -> None:
    """Answers name `rm` first, and the panel `other`."""
    named = run.header.model_copy(update={"judges": run.header.judges[::-1]})
    swapped = replace(run, header=named)
    assert next(iter(run.generations[0].scores)) == "rm"
    write_report(tmp_path, swapped.report(), swapped.rows)
    found = json.loads((tmp_path / "Response_of_DPO_n_Ori_val_with_rm.json").read_bytes())
    own = {one.prompt_id: one for one in run.generations if one.cell == "dpo"}
    assert {row["judge"] for row in found} == {"other"}
    assert [row["score"] for row in found] == [own[row["prompt_id"]].scores["other"] for row in found]


def test_files_of_an_earlier_report_go(run: Run, folder: Path) -> None:
    less = replace(
        run,
        outcomes=[one for one in run.outcomes if one.cell in (BASE, DPO)],
        scores=[row for row in run.scores if row.cell in ("base", "dpo")],
        generations=[one for one in run.generations if one.cell in ("base", "dpo")],
    )
    (folder / "tables" / "notes.txt").write_text("mine")
    write_report(folder, less.report(), less.rows)
    assert [path.name for path in folder.glob("R*.json")] == ["Response_of_DPO_n_Ori_val_with_rm.json"]
    names = {path.name for path in (folder / "tables").iterdir()}
    assert "reward-models-on-the-validation-pairs.csv" not in names
    assert {"generations-judged.csv", "notes.txt"} <= names


def test_cells_of_one_name_in_the_file_system_get_a_file_each(run: Run, tmp_path: Path) -> None:
    seeded = CellId("dpo", (("beta", 0.1), ("loss", "ipo")), seed=1)
    names = ("dpo/beta", "dpo beta", "DPO:beta", f"{'x' * 300}a", f"{'x' * 300}b", "lone \ud800")
    cells = [seeded, *map(CellId, names)]
    answers = [replace(run.generations[0], cell=str(cell), text=str(cell)) for cell in cells]
    report = build_report(header(), [outcome(cell, "policy") for cell in cells], [], answers)
    write_course_files(tmp_path, report, [], answers, run.pairs)
    found = {path.name: json.loads(path.read_bytes()) for path in tmp_path.glob("Response_of_*.json")}
    assert sorted(rows[0]["response"] for rows in found.values()) == sorted(map(str, cells))
    assert sorted(rows[0]["model"] for rows in found.values()) == sorted(result.name for result in report.results)
    assert all(len(name) < 200 for name in found)
    assert found["Response_of_DPO_beta=0.1_loss=ipo_1_n_Ori_val_with_rm.json"][0]["response"] == str(seeded)
    assert found["Response_of_DPO_BETA_n_Ori_val_with_rm.json"][0]["ori_response"] is None


def test_the_first_reward_model_marks_and_the_judge_only_without_one() -> None:
    outcomes = [
        outcome(CellId("judge"), "reward"),
        replace(outcome(CellId("rm", seed=0), "reward"), status="failed"),
        outcome(CellId("rm", seed=1), "reward"),
        outcome(DPO, "policy"),
    ]
    results: list[Result] = build_report(header(), outcomes, [], []).results
    assert marked_by(results) == "rm#1"
    assert marked_by(results[:2]) == "judge"
    assert marked_by(results[3:]) is None
