from __future__ import annotations

import csv
import io
import json
import math
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from align_bench.records import CellId, Cost, Estimate, PairTexts, TrainingText
from align_bench.report.course import training_keywords
from align_bench.report.course_files import MARKS
from align_bench.report.export import read_pairs, write_report
from align_bench.report.files import unicode
from align_bench.report.render.csv import inert, section_csv, write_tables
from align_bench.report.render.terminal import comparison_tables
from align_bench.report.rows import ScoreRow
from align_bench.report.schema import Course, FavouredAnswers, ParetoSet, Report
from align_bench.report.tables import report_sections
from align_bench.report.tables.cost import costs
from align_bench.report.tables.section import Column, Section
from align_bench.report.tables.section import text as words
from tests.report.conftest import BASE, DPO, RM, RM_FAST, SIMPO, Run, result_of


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take seconds; what they are is tested elsewhere."""
    monkeypatch.setattr("align_bench.report.figures.DRAWN", ())


def section(report: Report, title: str) -> Section:
    return next(found for found in report_sections(report) if found.title.startswith(title))


def shown(*renderables: RenderableType, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    for renderable in renderables:
        console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def column(found: Section, heading: str) -> list[str]:
    place = [one.heading for one in found.columns].index(heading)
    return [row[place] for row in found.texts()]


# -- the blocks of the report ------------------------------------------------------------------------------------------


def rewarded(run: Run, cell: CellId) -> list[tuple[ScoreRow, float, float]]:
    """A cell's rows with both rewards."""
    return [
        (row, row.chosen_reward, row.rejected_reward)
        for row in run.scores
        if row.cell == str(cell) and row.chosen_reward is not None and row.rejected_reward is not None
    ]


def favoured_by(course: Course, by: CellId | str) -> tuple[FavouredAnswers, FavouredAnswers]:
    favoured, unfavoured = (one for one in course.answers if one.by == str(by))
    assert (favoured.side, unfavoured.side) == ("favoured", "unfavoured")
    return favoured, unfavoured


def test_groups_of_scores_are_recomputed_from_the_rows(run: Run) -> None:
    groups = run.report().course.scores
    assert [found.cell for found in groups] == [RM, RM_FAST]
    for found in groups:
        rows = rewarded(run, found.cell)
        correct = [chosen for _, chosen, rejected in rows if chosen > rejected]
        wrong = [rejected for _, chosen, rejected in rows if chosen < rejected]
        assert (found.correct.n, found.wrong.n, found.ties) == (len(correct), len(wrong), 0)
        assert found.correct.mean == pytest.approx(statistics.mean(correct))
        assert found.wrong.std == pytest.approx(statistics.stdev(wrong))
        assert found.test.difference == pytest.approx(statistics.mean(correct) - statistics.mean(wrong))
        assert found.test.p is not None
        assert 0 < found.test.p < 1


def test_favoured_answers_follow_the_score_or_the_label(run: Run) -> None:
    course = run.report().course
    rows = [(row, chosen > rejected) for row, chosen, rejected in rewarded(run, RM)]
    lengths = [row.chosen_words if win else row.rejected_words for row, win in rows]
    grades = [row.rejected_grade if win else row.chosen_grade for row, win in rows]
    graded = [grade for grade in grades if grade is not None]
    favoured, unfavoured = favoured_by(course, RM)
    assert favoured.words.median == statistics.median(length for length in lengths if length is not None)
    assert (unfavoured.grade.n, unfavoured.grade.n_valid) == (60, len(graded))
    assert unfavoured.grade.mean == pytest.approx(statistics.mean(graded))
    label, _ = favoured_by(course, "label")
    chosen = [row.chosen_words for row, _ in rows if row.chosen_words is not None]
    assert label.words.mean == pytest.approx(statistics.mean(chosen))
    assert label.words.n == 60


def test_ties_and_missing_scores_favour_nothing(run: Run) -> None:
    odd = {0: (1.0, 1.0), 1: (None, 2.0), 2: (2.0, math.nan)}
    scores = [
        replace(row, chosen_reward=odd[row.pair][0], rejected_reward=odd[row.pair][1])
        if row.cell == str(RM) and row.pair in odd
        else row
        for row in run.scores
    ]
    course = replace(run, scores=scores).report().course
    groups = next(one for one in course.scores if one.cell == RM)
    assert groups.correct.n + groups.wrong.n == 57
    assert groups.ties == 1
    assert favoured_by(course, RM)[0].words.n == 57


def test_keywords_of_every_corpus(run: Run) -> None:
    training = training_keywords([TrainingText(0, "An animal is a dog."), TrainingText(2, "dog")])
    report = replace(run, header=run.header.model_copy(update={"training_keywords": training})).report()
    lists = {(one.of, one.kind): one for one in report.keywords.lists}
    hostile = str(run.outcomes[5].cell)
    assert {of for of, kind in lists if kind == "generated"} == {"base", "dpo", "simpo", hostile}
    assert {of for of, kind in lists if kind == "favoured"} == {"label", str(RM), str(RM_FAST)}
    label = lists["label", "favoured"]
    assert label.texts == 60
    assert {"animal", "script", "alert"} <= {one.term for one in label.keywords}
    by_model = lists[str(RM), "favoured"].keywords
    assert {"animal", "编程"} <= {one.term for one in by_model}  # some of the chosen, some of the others
    assert len(by_model) <= 20
    table = section(report, "Keywords")
    assert column(table, "of")[:2] == ["train", "label"]
    assert column(table, "shared with train")[:2] == ["2", "1"]
    of_base = column(table, "shared with base")[column(table, "of").index("base")]
    assert of_base == str(len(lists["base", "generated"].keywords))


def test_pareto_sets_hold_whom_none_beats(run: Run) -> None:
    seconds = {BASE: 1.0, DPO: 50.0, SIMPO: 10.0}
    outcomes = [
        replace(one, cost=Cost(seconds[one.cell], 1, 1), trainable=7)
        if one.cell in seconds
        else replace(one, cost=None)
        for one in run.outcomes
    ]
    report = replace(run, outcomes=outcomes).report()
    base, dpo, simpo = (result_of(report, cell).metrics.judge_reward_mean.value for cell in (BASE, DPO, SIMPO))
    assert base is not None
    assert dpo is not None
    assert simpo is not None
    assert base < dpo < simpo  # so simpo beats dpo on both
    judged = next(one for one in report.pareto if one.metric == "judge_reward_mean")
    assert judged == ParetoSet(among="policies", metric="judge_reward_mean", cells=[BASE, SIMPO])
    assert all(one.among == "policies" for one in report.pareto)  # no reward model has a cost here
    found = costs(report)
    assert "judge" in column(found, "Pareto")[2]
    assert "judge" not in column(found, "Pareto")[1]
    assert column(found, "trainable parameters") == ["7", "7", "7"]


def test_the_judge_is_no_contestant(run: Run) -> None:
    outcomes = [
        replace(one, algorithm="judge", cost=Cost(0.1, 1, 1)) if one.cell == RM_FAST else one for one in run.outcomes
    ]
    report = replace(run, outcomes=outcomes).report()
    assert next(one for one in report.pareto if one.among == "reward models").cells == [RM]


# -- CSV ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(run: Run, tmp_path: Path) -> Path:
    write_report(tmp_path, run.report(), run.rows)
    return tmp_path


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_every_number_is_in_the_csv_with_all_digits(run: Run, folder: Path) -> None:
    report = run.report()
    found = {(row["cell"], row["metric"]): row for row in rows_of(folder / "tables" / "metrics.csv")}
    for result in report.results:
        estimates = {name: metric for name, metric in result.metrics if isinstance(metric, Estimate)}
        estimates |= {f"judge_reward_mean[{other.judge}]": other.mean for other in result.metrics.other_judges}
        for name, metric in estimates.items():
            if metric.value is not None and "\x1b" not in result.name:
                row = found[result.name, name]
                assert float(row["value"]) == metric.value
                assert row["low"] == ("" if metric.low is None else repr(metric.low))
    assert ("dpo", "judge_reward_mean[other]") in found
    assert found["ppo", ""]["status"] == "skipped"
    compared = rows_of(folder / "tables" / "comparisons.csv")
    assert len(compared) == len(report.comparisons)
    assert [float(row["p"]) for row in compared if row["p"]] == [one.p for one in report.comparisons if one.p]
    assert {row["verdict"] for row in compared} >= {"inconclusive"}


def test_every_table_is_a_csv(run: Run, folder: Path) -> None:
    made = {path.stem for path in (folder / "tables").iterdir()}
    titles = [found.title for found in report_sections(run.report())]
    assert len(made) == len(titles) + 2
    rows = rows_of(folder / "tables" / "reward-models-on-the-validation-pairs.csv")
    assert list(rows[0])[:4] == ["model", "accuracy", "accuracy low", "accuracy high"]
    assert float(rows[0]["accuracy low"]) < float(rows[0]["accuracy"]) < float(rows[0]["accuracy high"])
    against = rows_of(folder / "tables" / "policies-against-the-base.csv")
    assert float(against[0]["95% interval low"]) <= float(against[0]["diff"]) <= float(against[0]["95% interval high"])


def test_two_tables_of_one_title_are_two_files(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = [Section("Cost, ∞", [Column("x")], [[text]], []) for text in ("1", "2")]
    monkeypatch.setattr("align_bench.report.render.csv.report_sections", lambda report: twice)
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


def hostile_run(run: Run) -> Run:
    """A policy for each hostile text: its name, its answer, its prompt; a failure of this reason; pairs of it."""
    policies = [replace(run.outcomes[3], cell=CellId(text[:500]), reward=text) for text in HOSTILE]
    failures = [
        replace(run.outcomes[-1], cell=CellId("ppo", seed=seed), reason=text) for seed, text in enumerate(HOSTILE)
    ]
    base = [one for one in run.generations if one.cell == "base" and one.prompt_id < 2]
    answers = [
        replace(one, cell=text[:500], text=text, prompt=text, scores={text[:500]: 1.0, "gold": 1.0})
        for text in HOSTILE
        for one in base
    ]
    return Run(
        run.header,
        [*run.outcomes[:2], *policies, *failures],
        [row for row in run.scores if row.cell == str(RM)],
        [*base, *answers],
        [PairTexts(pair, text, text, f"{text} ") for pair, text in enumerate(HOSTILE)],
    )


def test_hostile_text_leaves_every_file_valid_and_inert(run: Run, tmp_path: Path) -> None:
    """As a cell's name and failure, an answer, a prompt, a judge and a keyword."""
    hostile = hostile_run(run)
    report = hostile.report()
    write_report(tmp_path, report, hostile.rows)
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
def test_hostile_text_cannot_steer_the_terminal(run: Run, width: int) -> None:
    text = shown(*comparison_tables(hostile_run(run).report()), width=width)
    assert not [letter for letter in text if not (letter.isprintable() or letter == "\n")]
    assert max(map(cell_len, text.splitlines())) <= width
    assert len(text) < 600_000
