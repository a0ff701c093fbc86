"""Methods held against each other: within a report, and between stored runs."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import JsonValue
from typer.testing import CliRunner

from align_bench.cli.main import app
from align_bench.errors import MissingResultError
from align_bench.records import CellId, Comparison, MetricKey
from align_bench.report.cells import gather
from align_bench.report.compare import Run, merge, most_different, verdicts, write_comparison
from align_bench.report.export import write_report
from align_bench.report.schema import SuiteFacts
from align_bench.report.tables.values import Number
from tests.report import conftest
from tests.report.conftest import DPO, RM, RM_FAST, SIMPO

OLD, NEW = (replace(DPO, run=run) for run in ("old", "new"))


@pytest.fixture
def stored(run: conftest.Run) -> Run:
    return Run(run.report(), run.rows)


def settled(run: Run, **settings: JsonValue) -> Run:
    """The same run of a suite with these settings."""
    known: dict[str, JsonValue] = {"base": "b", "data": {"val": 1}, "generate": {"temperature": 1}, "judge": 1}
    suite = SuiteFacts(name="demo", state="", settings={**known, **settings})
    return replace(run, report=run.report.model_copy(update={"suite": suite}))


def shifted(run: Run, cell: CellId, gain: float) -> Run:
    """The same run, a cell's judge scores higher by `gain` on every second prompt, and by half of it elsewhere."""
    generations = [
        replace(one, scores={**one.scores, "rm": one.scores["rm"] + (gain if one.prompt_id % 2 else gain / 2)})
        if one.cell == str(cell)
        else one
        for one in run.rows.generations
    ]
    return replace(run, rows=replace(run.rows, generations=generations))


def between(run: Run, a: CellId, b: CellId) -> list[Comparison]:
    return [found for found in run.report.comparisons if {found.a, found.b} == {a, b}]


def test_a_method_of_two_runs_is_tested_prompt_by_prompt(stored: Run) -> None:
    merged, names = merge({"old": settled(stored), "new": settled(shifted(stored, DPO, 2.0))}, ["dpo"])
    assert names == ["old/dpo", "new/dpo"]
    assert [result.name for result in merged.report.results] == ["base", "old/dpo", "new/dpo"]
    (found,) = [one for one in between(merged, OLD, NEW) if one.metric == MetricKey("judge_reward")]
    assert found.difference is not None
    assert abs(found.difference) == pytest.approx(statistics.mean([2.0, 1.0]))
    assert found.p_holm is not None
    assert found.p_holm < 0.001


def test_the_cells_of_a_grid_keep_their_parameters(stored: Run) -> None:
    merged, names = merge({"old": settled(stored), "new": settled(stored)}, ["rm"])
    assert names == [f"{run}/rm[learning_rate={rate}]" for run in ("old", "new") for rate in (1e-05, 2e-05)]
    cells = [result.cell for result in merged.report.results if result.kind == "reward"]
    assert cells == [replace(cell, run=run) for run in ("old", "new") for cell in (RM, RM_FAST)]
    assert {row.cell for row in merged.rows.scores} == {"base", *map(str, cells)}


def test_judges_of_different_making_are_not_held_against_each_other(stored: Run) -> None:
    merged, _ = merge({"old": settled(stored), "new": settled(stored, judge=2)}, ["dpo"])
    judges = {judge for answer in merged.rows.generations for judge in answer.scores}
    assert judges == {"old/rm", "new/rm", "old/other", "new/other", "gold"}
    assert [judge.name for judge in merged.report.judges] == ["old/rm", "old/other", "new/rm", "new/other"]
    known = {one.metric for one in between(merged, OLD, NEW) if one.difference is not None}
    assert known == {MetricKey(name) for name in ("accuracy_logratio", "accuracy_logp_mean", "gold_accuracy")}


def test_reward_models_of_two_runs_are_not_held_against_each_other(stored: Run) -> None:
    generations = [replace(one, proxies={str(RM): 1.0 * one.prompt_id}) for one in stored.rows.generations]
    learned = settled(replace(stored, rows=replace(stored.rows, generations=generations)))
    merged, _ = merge({"old": learned, "new": learned}, ["dpo"])
    own = {answer.cell: set(answer.proxies) for answer in merged.rows.generations}
    assert own == {"base": {f"old/{RM}"}, "old/dpo": {f"old/{RM}"}, "new/dpo": {f"new/{RM}"}}
    known = {one.metric.name for one in between(merged, OLD, NEW) if one.difference is not None}
    assert "judge_reward" in known
    assert "proxy_reward" not in known


def test_a_judge_says_which_policies_of_every_run_it_rewarded(stored: Run) -> None:
    (judge, *others) = stored.report.judges
    known = [judge.model_copy(update={"rewarded": [DPO]}), *others]
    run = settled(replace(stored, report=stored.report.model_copy(update={"judges": known})))
    merged, _ = merge({"old": run, "new": run}, ["dpo"])
    assert [(judge.name, judge.rewarded) for judge in merged.report.judges] == [("rm", [OLD, NEW]), ("other", [])]


def test_bases_that_differ_stay_two(stored: Run) -> None:
    merged, _ = merge({"old": settled(stored), "new": settled(stored, base="other")}, ["dpo"])
    assert {result.name for result in merged.report.results} == {"old/base", "old/dpo", "new/base", "new/dpo"}


def test_runs_on_other_prompts_are_refused(stored: Run) -> None:
    asked = [replace(one, prompt="Who?") for one in stored.rows.generations]
    other = replace(stored, rows=replace(stored.rows, generations=asked))
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
    assert checkpoint.startswith("dpo against simpo, as checkpoints: accuracy_logratio: ")
    assert "judge_reward: " in checkpoint


def test_the_prompts_that_differ_most_come_in_order(run: conftest.Run) -> None:
    cells = gather(run.outcomes, run.scores, run.generations)
    for main, judge in (("rm", "rm"), ("other", "other"), ("of another run", "rm")):
        section = most_different(cells, DPO, SIMPO, main)
        scores = {(one.cell, one.prompt_id): one.scores[judge] for one in run.generations}
        gaps = sorted((scores["dpo", prompt] - scores["simpo", prompt] for prompt in range(40)), reverse=True)
        assert [cell.value for row in section.rows if isinstance(cell := row[3], Number)] == [*gaps[:10], *gaps[-10:]]


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
    write_comparison(tmp_path / "compare.html", stored, [str(RM), str(RM_FAST)], "")
    assert "Reward models on the validation pairs" in (tmp_path / "compare.html").read_text(encoding="utf-8")


def test_the_command_compares_stored_reports(stored: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("align_bench.report.figures.DRAWN", ())
    monkeypatch.setattr("sys.argv", ["align-bench", "compare", "dpo"])
    for name, run in (("old", settled(stored)), ("new", settled(shifted(stored, DPO, 2.0)))):
        write_report(tmp_path / name, run.report, run.rows)
    within = CliRunner().invoke(app, ["compare", "dpo", "simpo", "--run", "old", "--reports", str(tmp_path)])
    assert within.exit_code == 0, within.output
    assert (tmp_path / "old" / "compare.html").is_file()
    between = CliRunner().invoke(app, ["compare", "dpo", "--run", "old", "--run", "new", "--reports", str(tmp_path)])
    assert between.exit_code == 0, between.output
    assert "old/dpo against new/dpo" in (tmp_path / "compare.html").read_text(encoding="utf-8")
    one = CliRunner().invoke(app, ["compare", "dpo", "--run", "old", "--reports", str(tmp_path)])
    assert one.exit_code == 2
