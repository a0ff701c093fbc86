from __future__ import annotations

import csv
import io
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from align_bench.records import Cost, PairTexts
from align_bench.report.course import training_keywords
from align_bench.report.course_files import MARKS, marked_by, write_course_files
from align_bench.report.csv_tables import inert, section_csv, write_tables
from align_bench.report.export import read_pairs, write_report
from align_bench.report.files import unicode
from align_bench.report.report_sections import costs, report_sections
from align_bench.report.section import Column, Section
from align_bench.report.section import text as words
from align_bench.report.tables import comparison_tables


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take seconds; what they are is tested elsewhere."""
    monkeypatch.setattr("align_bench.report.figures.DRAWN", ())


def section(report: dict[str, Any], title: str) -> Section:
    return next(found for found in report_sections(report) if found.title.startswith(title))


def shown(*renderables: RenderableType, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    for renderable in renderables:
        console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def column(found: Section, heading: str) -> list[str]:
    place = [one.heading for one in found.columns].index(heading)
    return [row[place] for row in found.rows]


# -- the blocks of the report ------------------------------------------------------------------------------------------


def test_groups_of_scores_are_recomputed_from_the_rows(run: Any) -> None:
    report = run.report()
    models = [one["cell"] for one in report["course"]["scores"]]
    assert models == ["rm[learning_rate=1e-05]", "rm[learning_rate=2e-05]"]
    for found in report["course"]["scores"]:
        rows = [row for row in run.scores if row["cell"] == found["cell"]]
        correct = [row["chosen_reward"] for row in rows if row["chosen_reward"] > row["rejected_reward"]]
        wrong = [row["rejected_reward"] for row in rows if row["chosen_reward"] < row["rejected_reward"]]
        assert (found["correct"]["n"], found["wrong"]["n"], found["ties"]) == (len(correct), len(wrong), 0)
        assert found["correct"]["mean"] == pytest.approx(statistics.mean(correct))
        assert found["wrong"]["std"] == pytest.approx(statistics.stdev(wrong))
        assert found["test"]["difference"] == pytest.approx(statistics.mean(correct) - statistics.mean(wrong))
        assert 0 < found["test"]["p"] < 1


def test_favoured_answers_follow_the_score_or_the_label(run: Any) -> None:
    found = {(one["by"], one["side"]): one for one in run.report()["course"]["answers"]}
    rows = [row for row in run.scores if row["cell"] == "rm[learning_rate=1e-05]"]
    wins = [row["chosen_reward"] > row["rejected_reward"] for row in rows]
    favoured = [row["chosen_words"] if win else row["rejected_words"] for row, win in zip(rows, wins, strict=True)]
    others = [row["rejected_grade"] if win else row["chosen_grade"] for row, win in zip(rows, wins, strict=True)]
    graded = [grade for grade in others if grade is not None]
    by_model = found["rm[learning_rate=1e-05]", "favoured"], found["rm[learning_rate=1e-05]", "unfavoured"]
    assert by_model[0]["words"]["median"] == statistics.median(favoured)
    assert (by_model[1]["grade"]["n"], by_model[1]["grade"]["n_valid"]) == (60, len(graded))
    assert by_model[1]["grade"]["mean"] == pytest.approx(statistics.mean(graded))
    label = found["label", "favoured"]
    assert label["words"]["mean"] == pytest.approx(statistics.mean(row["chosen_words"] for row in rows))
    assert label["words"]["n"] == 60


def test_ties_and_missing_scores_favour_nothing(run: Any) -> None:
    name = "rm[learning_rate=1e-05]"
    odd = {0: (1.0, 1.0), 1: (None, 2.0), 2: (2.0, float("nan"))}
    scores = [
        {**row, "chosen_reward": odd[row["pair"]][0], "rejected_reward": odd[row["pair"]][1]}
        if row["cell"] == name and row["pair"] in odd
        else row
        for row in run.scores
    ]
    report = replace(run, scores=scores).report()
    groups = next(one for one in report["course"]["scores"] if one["cell"] == name)
    assert groups["correct"]["n"] + groups["wrong"]["n"] == 57
    assert groups["ties"] == 1
    answers = next(one for one in report["course"]["answers"] if one["by"] == name)
    assert answers["words"]["n"] == 57


def test_keywords_of_every_corpus(run: Any) -> None:
    header = {**run.header, "training_keywords": training_keywords(["An animal is a dog.", "dog"])}
    report = replace(run, header=header).report()
    lists = {(one["of"], one["kind"]): one for one in report["keywords"]["lists"]}
    assert {of for of, kind in lists if kind == "generated"} == {"base", "dpo", "simpo", run.outcomes[5].cell}
    assert {of for of, kind in lists if kind == "favoured"} == {"label", *(one.cell for one in run.outcomes[1:3])}
    label = lists["label", "favoured"]
    assert label["texts"] == 60
    assert {"animal", "script", "alert"} <= {one["term"] for one in label["keywords"]}
    by_model = lists["rm[learning_rate=1e-05]", "favoured"]
    assert {"animal", "编程"} <= {one["term"] for one in by_model["keywords"]}  # some of the chosen, some of the others
    assert len(by_model["keywords"]) <= 20
    shown = section(report, "Keywords")
    assert column(shown, "of")[:2] == ["train", "label"]
    assert column(shown, "as train")[:2] == ["2", "1"]
    assert column(shown, "as base")[shown_at(shown, "base")] == str(len(lists["base", "generated"]["keywords"]))


def shown_at(found: Section, cell: str) -> int:
    return column(found, "of").index(cell)


def test_pareto_sets_hold_whom_none_beats(run: Any) -> None:
    seconds = {"base": 1.0, "dpo": 50.0, "simpo": 10.0}
    outcomes = [
        replace(one, cost=Cost(seconds[one.cell], 1, 1), trainable=7)
        if one.cell in seconds
        else replace(one, cost=None)
        for one in run.outcomes
    ]
    report = replace(run, outcomes=outcomes).report()
    values = {one["cell"]: one["metrics"]["judge_reward_mean"]["value"] for one in report["results"]}
    assert values["base"] < values["dpo"] < values["simpo"]  # so simpo beats dpo on both
    judged = next(one for one in report["pareto"] if one["metric"] == "judge_reward_mean")
    assert judged == {"among": "policies", "metric": "judge_reward_mean", "cost": "seconds", "cells": ["base", "simpo"]}
    assert all(one["among"] == "policies" for one in report["pareto"])  # no reward model has a cost here
    found = costs(report)
    assert "judge" in column(found, "Pareto")[2]
    assert "judge" not in column(found, "Pareto")[1]
    assert column(found, "trained") == ["7", "7", "7"]


def test_the_judge_is_no_contestant(run: Any) -> None:
    outcomes = [
        replace(one, algorithm="judge", cost=Cost(0.1, 1, 1)) if one.cell == "rm[learning_rate=2e-05]" else one
        for one in run.outcomes
    ]
    report = replace(run, outcomes=outcomes).report()
    assert next(one for one in report["pareto"] if one["among"] == "reward models")["cells"] == [
        "rm[learning_rate=1e-05]"
    ]


# -- the course's files ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(run: Any, tmp_path: Path) -> Path:
    write_report(tmp_path, run.report(), run.scores, run.generations, pairs=run.pairs)
    return tmp_path


def test_marks_hold_every_pair_with_its_scores(run: Any, folder: Path) -> None:
    found = json.loads((folder / MARKS).read_bytes())
    rows = [row for row in run.scores if row["cell"] == "rm[learning_rate=1e-05]"]
    assert len(found) == len(rows) == 60
    assert list(found[0]) == [
        *("pair", "question", "chosen", "rejected", "chosen_score", "rejected_score", "choice", "correct"),
        *("higher_score", "model"),
    ]
    for mark, row, pair in zip(found, rows, run.pairs, strict=True):
        assert (mark["pair"], mark["question"], mark["chosen"], mark["rejected"]) == tuple(
            getattr(pair, name) for name in ("pair", "prompt", "chosen", "rejected")
        )
        assert (mark["chosen_score"], mark["rejected_score"]) == (row["chosen_reward"], row["rejected_reward"])
        assert mark["correct"] == (row["chosen_reward"] > row["rejected_reward"])
        assert mark["choice"] == ("chosen" if mark["correct"] else "rejected")
        assert mark["higher_score"] == max(row["chosen_reward"], row["rejected_reward"])
        assert mark["model"] == "rm[learning_rate=1e-05]"


def test_marks_name_ties_and_missing_scores(run: Any, tmp_path: Path) -> None:
    name = "rm[learning_rate=1e-05]"
    scores = [
        {"cell": name, "pair": 0, "chosen_reward": 1.0, "rejected_reward": 1.0},
        {"cell": name, "pair": 1, "chosen_reward": None, "rejected_reward": 1.0},
        {"cell": name, "pair": 2, "chosen_reward": float("inf"), "rejected_reward": 1.0},
    ]
    write_course_files(tmp_path, run.report(), scores, [], run.pairs[:3])
    found = json.loads((tmp_path / MARKS).read_bytes())
    assert [(one["choice"], one["correct"], one["higher_score"]) for one in found] == [
        ("tie", None, None),
        (None, None, None),
        (None, None, None),
    ]
    assert found[2]["chosen_score"] is None


def test_responses_stand_beside_those_of_the_base(run: Any, folder: Path) -> None:
    found = json.loads((folder / "Response_of_DPO_n_Ori_val_with_rm.json").read_bytes())
    own = {one.prompt_id: one for one in run.generations if one.cell == "dpo"}
    base = {one.prompt_id: one for one in run.generations if one.cell == "base"}
    assert len(found) == len(own) == 40
    for row in found:
        one, other = own[row["prompt_id"]], base[row["prompt_id"]]
        assert (row["question"], row["response"], row["score"]) == (one.prompt, one.text, one.scores["rm"])
        assert (row["ori_response"], row["ori_score"]) == (other.text, other.scores["rm"])
        assert (row["judge"], row["model"]) == ("rm", "dpo")


def test_files_of_an_earlier_report_go(run: Any, folder: Path) -> None:
    less = replace(
        run,
        outcomes=[one for one in run.outcomes if one.cell in ("base", "dpo")],
        scores=[row for row in run.scores if row["cell"] in ("base", "dpo")],
        generations=[one for one in run.generations if one.cell in ("base", "dpo")],
    )
    (folder / "tables" / "notes.txt").write_text("mine")
    write_report(folder, less.report(), less.scores, less.generations, pairs=less.pairs)
    assert [path.name for path in folder.glob("R*.json")] == ["Response_of_DPO_n_Ori_val_with_rm.json"]
    names = {path.name for path in (folder / "tables").iterdir()}
    assert "reward-models-on-the-validation-pairs.csv" not in names
    assert {"generations-judged.csv", "notes.txt"} <= names


def test_cells_of_one_name_in_the_file_system_get_a_file_each(run: Any, tmp_path: Path) -> None:
    names = ["dpo[beta=0.1]#1", "dpo/beta", "dpo beta", "DPO:beta", f"{'x' * 300}a", f"{'x' * 300}b"]
    answers = [replace(run.generations[0], cell=name, text=name) for name in names]
    write_course_files(tmp_path, run.report(), run.scores, answers, run.pairs)
    found = {path.name: json.loads(path.read_bytes()) for path in tmp_path.glob("Response_of_*.json")}
    assert sorted(rows[0]["model"] for rows in found.values()) == sorted(names)
    assert all(len(name) < 200 for name in found)
    assert found["Response_of_DPO_beta=0.1_1_n_Ori_val_with_rm.json"][0]["response"] == "dpo[beta=0.1]#1"
    assert found["Response_of_DPO_BETA_n_Ori_val_with_rm.json"][0]["ori_response"] is None


def test_the_first_reward_model_marks_and_the_judge_only_without_one(run: Any) -> None:
    results = [
        {"cell": "judge", "algorithm": "judge", "kind": "reward", "status": "done"},
        {"cell": "rm#0", "algorithm": "rm", "kind": "reward", "status": "failed"},
        {"cell": "rm#1", "algorithm": "rm", "kind": "reward", "status": "done"},
        {"cell": "dpo", "algorithm": "dpo", "kind": "policy", "status": "done"},
    ]
    assert marked_by(results) == "rm#1"
    assert marked_by(results[:2]) == "judge"
    assert marked_by(results[3:]) is None


# -- CSV ---------------------------------------------------------------------------------------------------------------


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_every_number_is_in_the_csv_with_all_digits(run: Any, folder: Path) -> None:
    report = run.report()
    found = {(row["cell"], row["metric"]): row for row in rows_of(folder / "tables" / "metrics.csv")}
    for result in report["results"]:
        for name, metric in result["metrics"].items():
            if metric["value"] is not None and "\x1b" not in result["cell"]:
                row = found[result["cell"], name]
                assert float(row["value"]) == metric["value"]
                assert row["low"] == ("" if metric["low"] is None else repr(metric["low"]))
    assert found["ppo", ""]["status"] == "skipped"
    compared = rows_of(folder / "tables" / "comparisons.csv")
    assert len(compared) == len(report["comparisons"])
    assert [float(row["p"]) for row in compared if row["p"]] == [one["p"] for one in report["comparisons"] if one["p"]]
    assert {row["verdict"] for row in compared} >= {"none shown"}


def test_every_table_is_a_csv(run: Any, folder: Path) -> None:
    made = {path.stem for path in (folder / "tables").iterdir()}
    titles = [found.title for found in report_sections(run.report())]
    assert len(made) == len(titles) + 2
    rows = rows_of(folder / "tables" / "reward-models-on-the-validation-pairs.csv")
    assert list(rows[0])[:3] == ["model", "accuracy", "accuracy ±"]
    assert float(rows[0]["accuracy"]) + float(rows[0]["accuracy ±"]) > 0
    against = rows_of(folder / "tables" / "policies-against-the-base.csv")
    assert float(against[0]["95% interval low"]) <= float(against[0]["diff"]) <= float(against[0]["95% interval high"])


def test_two_tables_of_one_title_are_two_files(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = [Section("Cost, ∞", [Column("x")], [[text]], []) for text in ("1", "2")]
    monkeypatch.setattr("align_bench.report.csv_tables.report_sections", lambda report: twice)
    write_tables(tmp_path, run.report())
    assert sorted(path.read_text() for path in (tmp_path / "tables").glob("cost*.csv")) == ["x\n1\n", "x\n2\n"]


# -- hostile text ------------------------------------------------------------------------------------------------------

FORMULAS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    " =1+1",
    "＝1+1",
    "-2 ±1",
    '=cmd|"/C calc"!A0',
]
HOSTILE = [
    *FORMULAS,
    "<script>alert(1)</script>",
    "\x1b[31mred\x1b]0;title\x07",
    "[red]markup[/red] [link=file:///]x[/link]",
    "\u202eright to left\u2066",
    "nul\x00 bell\x07 del\x7f nel\x85",
    "lone \ud800 surrogate \udfff",
    'quotes " and, commas; and\r\nlines',
    "x" * 100_000,
    "字" * 100_000,
    "a|b\\|c `code` ![i](javascript:x)",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_starts_like_a_formula(text: str) -> None:
    assert inert(text).startswith("'")
    made = section_csv(Section("t", [words(text), Column(text)], [[text, "1"]], []))
    assert all(cell.startswith("'") for row in csv.reader(io.StringIO(made)) for cell in row if cell != "1")


@pytest.mark.parametrize("number", ["-0.5", "+0.067", "-1.2e-05", "3", "-12.5%", "+inf"])
def test_numbers_stay_numbers(number: str) -> None:
    assert inert(number) == (number if number != "+inf" else "'+inf")
    if number[-1] not in "%f":
        assert inert(float(number)) == repr(float(number))


def hostile_run(run: Any) -> Any:
    """A policy for each hostile text: its name, its answer, its prompt; a failure of this reason; pairs of it."""
    policies = [replace(run.outcomes[3], cell=text[:500], reward=text) for text in HOSTILE]
    failures = [replace(run.outcomes[-1], cell=f"ppo#{place}", reason=text) for place, text in enumerate(HOSTILE)]
    base = [one for one in run.generations if one.cell == "base" and one.prompt_id < 2]
    answers = [
        replace(one, cell=text[:500], text=text, prompt=text, scores={text[:500]: 1.0, "gold": 1.0})
        for text in HOSTILE
        for one in base
    ]
    return type(run)(
        run.header,
        [*run.outcomes[:2], *policies, *failures],
        [row for row in run.scores if row["cell"] == "rm[learning_rate=1e-05]"],
        [*base, *answers],
        [PairTexts(pair, text, text, f"{text} ") for pair, text in enumerate(HOSTILE)],
    )


def test_hostile_text_leaves_every_file_valid_and_inert(run: Any, tmp_path: Path) -> None:
    """As a cell's name and failure, an answer, a prompt, a judge and a keyword."""
    hostile = hostile_run(run)
    report = hostile.report()
    write_report(tmp_path, report, hostile.scores, hostile.generations, pairs=hostile.pairs)
    marks = json.loads((tmp_path / MARKS).read_bytes().decode("utf-8"))
    assert [(mark["question"], mark["chosen"]) for mark in marks] == [(text, text) for text in HOSTILE]
    responses = [json.loads(path.read_bytes().decode("utf-8")) for path in tmp_path.glob("Response_of_*.json")]
    assert {(rows[0]["response"], rows[0]["question"]) for rows in responses} == {(text, text) for text in HOSTILE}
    assert json.loads((tmp_path / "report.json").read_bytes().decode("utf-8"))["results"]
    assert [pair.prompt for pair in read_pairs(tmp_path)] == [unicode(text) for text in HOSTILE]
    for path in (tmp_path / "tables").iterdir():
        raw = path.read_bytes().decode("utf-8")
        assert not [letter for letter in raw if not (letter.isprintable() or letter == "\n")]
        table = list(csv.reader(io.StringIO(raw), strict=True))
        assert len({len(row) for row in table}) == 1
        for cell in (cell for row in table for cell in row):
            assert len(cell) < 1_100
            assert not cell.startswith(("=", "@", "\t", "\r", "＝")), cell
            assert not cell.startswith(("+", "-")) or inert(cell) == cell
    text = (tmp_path / "report.md").read_bytes().decode("utf-8")
    assert not [letter for letter in text if not (letter.isprintable() or letter == "\n")]
    assert "<" not in text
    assert max(map(len, text.splitlines())) < 30_000


@pytest.mark.parametrize("width", [80, 200])
def test_hostile_text_cannot_steer_the_terminal(run: Any, width: int) -> None:
    text = shown(*comparison_tables(hostile_run(run).report()), width=width)
    assert not [letter for letter in text if not (letter.isprintable() or letter == "\n")]
    assert max(map(cell_len, text.splitlines())) <= width
    assert len(text) < 600_000
