"""Methods held against each other: within a report, and between stored runs."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from align_bench.cli.main import app
from align_bench.errors import MissingResultError
from align_bench.report.cells import gather
from align_bench.report.compare import Run, merge, most_different, verdicts, write_comparison
from align_bench.report.export import write_report


@pytest.fixture
def stored(run: Any) -> Run:
    return Run(run.report(), run.scores, run.generations, [])


def settled(run: Run, **settings: Any) -> Run:
    suite = {
        "name": "demo",
        "settings": {"base": "b", "data": {"val": 1}, "generate": {"temperature": 1}, "judge": 1, **settings},
    }
    return replace(run, report={**run.report, "suite": suite})


def shifted(run: Run, cell: str, gain: float) -> Run:
    """The same run, a cell's judge scores higher by `gain` on every second prompt, and by half of it elsewhere."""
    generations = [
        replace(one, scores={**one.scores, "rm": one.scores["rm"] + (gain if one.prompt_id % 2 else gain / 2)})
        if one.cell == cell
        else one
        for one in run.generations
    ]
    return replace(run, generations=generations)


def test_a_method_of_two_runs_is_tested_prompt_by_prompt(stored: Run) -> None:
    merged, names = merge({"old": settled(stored), "new": settled(shifted(stored, "dpo", 2.0))}, ["dpo"])
    assert names == ["old/dpo", "new/dpo"]
    assert [found["cell"] for found in merged.report["results"]] == ["base", "old/dpo", "new/dpo"]
    (found,) = [
        one
        for one in merged.report["comparisons"]
        if {one["a"], one["b"]} == {"old/dpo", "new/dpo"} and one["metric"] == "judge_reward"
    ]
    assert abs(found["difference"]) == pytest.approx(statistics.mean([2.0, 1.0]))
    assert found["p_holm"] < 0.001


def test_judges_of_different_making_are_not_held_against_each_other(stored: Run) -> None:
    merged, _ = merge({"old": settled(stored), "new": settled(stored, judge=2)}, ["dpo"])
    judges = {judge for answer in merged.generations for judge in answer.scores}
    assert judges == {"old/rm", "new/rm", "old/other", "new/other", "gold"}
    between = [one for one in merged.report["comparisons"] if {one["a"], one["b"]} == {"old/dpo", "new/dpo"}]
    assert {one["metric"] for one in between if one["difference"] is not None} == {"accuracy", "gold_accuracy"}


def test_bases_that_differ_stay_two(stored: Run) -> None:
    merged, _ = merge({"old": settled(stored), "new": settled(stored, base="other")}, ["dpo"])
    assert {found["cell"] for found in merged.report["results"]} == {"old/base", "old/dpo", "new/base", "new/dpo"}


def test_runs_on_other_prompts_are_refused(stored: Run) -> None:
    other = replace(stored, generations=[replace(one, prompt="Who?") for one in stored.generations])
    with pytest.raises(MissingResultError, match="different validation pairs"):
        merge({"old": settled(stored), "new": settled(other)}, ["dpo"])
    with pytest.raises(MissingResultError, match="different validation pairs"):
        merge({"old": settled(stored), "new": settled(stored, data={"val": 2})}, ["dpo"])


def test_an_unknown_method_and_a_single_cell_are_refused(stored: Run) -> None:
    runs = {"old": settled(stored), "new": settled(stored)}
    with pytest.raises(MissingResultError, match="no run has 'dop'"):
        merge(runs, ["dop", "dpo"])
    with pytest.raises(MissingResultError, match="only one cell"):
        merge(runs, ["base"])


def test_both_levels_have_a_verdict(stored: Run) -> None:
    method, checkpoint = verdicts(stored.report, [("dpo", "simpo")])
    assert method.startswith("dpo against simpo, as methods: no claim.")
    assert checkpoint.startswith("dpo against simpo, as checkpoints: accuracy: ")
    assert "judge_reward: " in checkpoint


def test_the_prompts_that_differ_most_come_in_order(run: Any) -> None:
    cells = gather(run.outcomes, run.scores, run.generations)
    section = most_different(cells, "dpo", "simpo")
    scores = {(one.cell, one.prompt_id): one.scores["rm"] for one in run.generations}
    gaps = sorted((scores["dpo", prompt] - scores["simpo", prompt] for prompt in range(40)), reverse=True)
    shown = [float(row[3]) for row in section.rows]
    assert shown == pytest.approx([*gaps[:10], *gaps[-10:]], abs=6e-4)


def test_the_page_holds_only_what_is_compared(stored: Run, tmp_path: Path) -> None:
    path = tmp_path / "compare.html"
    write_comparison(path, stored, ["dpo", "simpo"], "align-bench compare dpo simpo")
    html = path.read_text(encoding="utf-8")
    assert "<h1>dpo against simpo</h1>" in html
    assert "as methods: no claim" in html
    assert "Prompts on which dpo and simpo differ most" in html
    assert 'id="prompt-differences"' in html
    assert "kto" not in html
    with pytest.raises(MissingResultError, match="kto"):
        write_comparison(path, stored, ["dpo", "kto"], "")


def test_reward_models_are_compared_without_answers(stored: Run, tmp_path: Path) -> None:
    names = ["rm[learning_rate=1e-05]", "rm[learning_rate=2e-05]"]
    write_comparison(tmp_path / "compare.html", stored, names, "")
    assert "Reward models on the validation pairs" in (tmp_path / "compare.html").read_text(encoding="utf-8")


def test_the_command_compares_stored_reports(stored: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("align_bench.report.figures.DRAWN", ())
    monkeypatch.setattr("sys.argv", ["align-bench", "compare", "dpo"])
    for name, run in (("old", settled(stored)), ("new", settled(shifted(stored, "dpo", 2.0)))):
        write_report(tmp_path / name, run.report, run.scores, run.generations)
    within = CliRunner().invoke(app, ["compare", "dpo", "simpo", "--run", "old", "--reports", str(tmp_path)])
    assert within.exit_code == 0, within.output
    assert (tmp_path / "old" / "compare.html").is_file()
    between = CliRunner().invoke(app, ["compare", "dpo", "--run", "old", "--run", "new", "--reports", str(tmp_path)])
    assert between.exit_code == 0, between.output
    assert "old/dpo against new/dpo" in (tmp_path / "compare.html").read_text(encoding="utf-8")
    one = CliRunner().invoke(app, ["compare", "dpo", "--run", "old", "--reports", str(tmp_path)])
    assert one.exit_code == 2
