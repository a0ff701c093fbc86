"""Suites and reports from Python, and the notebook that shows them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import align_bench
from align_bench.errors import MissingResultError, SuiteError
from align_bench.report.export import read_report
from align_bench.report.render.csv import METRIC_COLUMNS
from align_bench.report.verdict import verdict

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "reports" / "published"
# What makes the notebook's own run small enough for a test, and nothing else.
SMALLER = {
    '"data.train.rows": 128': '"data.train.rows": 16',
    '"data.val.rows": 64': '"data.val.rows": 8, "data.test.rows": 8',
    '"generate.prompts": 24': '"generate.prompts": 6',
    '"generate.max_new_tokens": 24': '"generate.max_new_tokens": 4',
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """What the cells of the notebook leave behind, run one after the other in a folder that looks like a clone."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "reports").mkdir()
    (folder / "reports" / "published").symlink_to(PUBLISHED)
    text = (ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8")
    cells = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    names: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        for cell in cells:
            exec(smaller(cell), names)
        yield names


def smaller(cell: str) -> str:
    if "align_bench.run(" in cell:
        for written, tried in SMALLER.items():
            assert written in cell
            cell = cell.replace(written, tried)
    return cell


def test_the_notebook_runs(shown: dict[str, object]) -> None:
    mine = shown["mine"]
    assert isinstance(mine, align_bench.Report)
    assert [one.status for one in mine.record.results] == ["done"] * 3
    assert '--set \'methods=["dpo", "simpo"]\'' in mine.record.command
    answers = mine.generations()
    assert set(answers["cell"]) == {"base", "dpo", "simpo"}
    assert answers["scores.gold"].isin([0.0, 1.0]).all()
    assert len(mine.scores()) > 0
    assert set(mine.training()["cell"]) == {"dpo", "simpo"}
    assert (mine.adapter("dpo") / "adapter_config.json").is_file()
    with pytest.raises(MissingResultError, match="base has no adapter"):
        mine.adapter("base")
    again = align_bench.load(mine.folder, runs=mine.runs)
    assert again.record == mine.record
    with pytest.raises(MissingResultError, match="not in"):
        align_bench.load(mine.folder, runs="elsewhere").adapter("dpo")


@pytest.mark.parametrize("name", ["assignment", "ppo", "debias", "smollm2", "overoptimisation"])
def test_frames_hold_what_the_report_holds(name: str) -> None:
    report = align_bench.load(PUBLISHED / name)
    record = read_report(PUBLISHED / name)
    rows = record.leaderboard or record.reward_leaderboard
    assert report.leaderboard()["label"].tolist() == [one.label for one in rows]
    assert report.reward_models()["label"].tolist() == [one.label for one in record.reward_leaderboard]
    for row, (_, shown) in zip(record.leaderboard, report.leaderboard().iterrows(), strict=bool(record.leaderboard)):
        if row.judge.mean is not None:
            assert (shown["judge"], shown["judge n"]) == (row.judge.mean, row.judge.n)
        if row.win_rate.low is not None:
            assert shown["win_rate low"] == row.win_rate.low
    compared = report.comparisons()
    assert compared["difference"].astype(float).tolist() == pytest.approx(
        [float("nan") if one.difference is None else one.difference for one in record.comparisons], nan_ok=True
    )
    assert compared["a"].tolist() == [str(one.a) for one in record.comparisons]
    assert compared["verdict"].tolist() == [verdict(one) for one in record.comparisons]
    metrics = report.metrics()
    assert tuple(metrics.columns) == METRIC_COLUMNS
    one = record.results[0]
    (value,) = metrics[(metrics["cell"] == one.name) & (metrics["metric"] == "accuracy")]["value"]
    assert value == one.metrics.accuracy.value


def test_a_notebook_shows_verdict_and_leaderboard_and_no_foreign_markup() -> None:
    report = align_bench.load(PUBLISHED / "assignment")
    html = report._repr_html_()
    assert "<table" in html
    for line in report.verdict:
        assert line in repr(report)
    hostile = report.record.model_copy(update={"summary": ["<script>alert(1)</script>"]})
    page = align_bench.Report(hostile, report.folder, report.runs)._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_figures_are_named_shown_and_saved(tmp_path: Path) -> None:
    report = align_bench.load(PUBLISHED / "assignment")
    assert "losses" in report.figures
    figure = report.figure("losses")
    assert figure._repr_svg_().startswith("<svg")
    figure.save(tmp_path / "losses.svg")
    assert (tmp_path / "losses.svg").read_text(encoding="utf-8") == figure.svg
    with pytest.raises(MissingResultError, match="Did you mean losses"):
        report.figure("loses")


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingResultError, match=re.escape("report.json")):
        align_bench.load(tmp_path)
    with pytest.raises(SuiteError, match="asignment"):
        align_bench.run("asignment")
    with pytest.raises(SuiteError, match=re.escape("train.epoch")):
        align_bench.run("assignment", set={"train.epoch": 2})
    with pytest.raises(AttributeError):
        align_bench.compare  # noqa: B018
    with pytest.raises(MissingResultError, match="no cell 'doo'"):
        align_bench.load(PUBLISHED / "assignment").adapter("doo")
