from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import TypeAdapter
from rich.console import Console

from align_bench.records import Comparison, Cost
from align_bench.report.export import ReportRows, write_report
from align_bench.report.formats import Format, inert_json, pairwise_text, report_text, section_text
from align_bench.report.history import history_section, past_runs
from align_bench.report.render.markdown import render
from align_bench.report.render.terminal import section_table
from align_bench.report.schema import Report
from align_bench.store.keys import Address
from align_bench.store.notes import RunNote
from align_bench.store.store import Store

if TYPE_CHECKING:
    from tests.report.conftest import Run


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take seconds; what they are is tested elsewhere."""
    monkeypatch.setattr("align_bench.report.figures.DRAWN", ())


def test_a_report_as_each_text(run: Run) -> None:
    report = run.report()
    text = report_text(report, Format.JSON)
    assert Report.model_validate_json(text) == report
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert report_text(report, Format.MD) == render(report)
    rows = list(csv.DictReader(io.StringIO(report_text(report, Format.CSV))))
    known = [one.metrics.margin.value for one in report.results]
    assert [float(row["value"]) for row in rows if row["metric"] == "margin"] == [
        one for one in known if one is not None
    ]


def test_metrics_by_one_of_several_name_it_in_csv(run: Run) -> None:
    report = run.report()
    rows = list(csv.DictReader(io.StringIO(report_text(report, Format.CSV))))
    found = {(row["cell"], row["metric"]): float(row["value"]) for row in rows if row["metric"]}
    (other,) = next(one for one in report.results if one.name == "dpo").metrics.other_judges
    assert found["dpo", f"judge_reward_mean[{other.judge}]"] == other.mean.value
    assert found["dpo", f"judge_reward_std[{other.judge}]"] == other.std.value


def test_a_comparison_as_each_text(run: Run) -> None:
    report = run.report()
    text = pairwise_text(report, [("dpo", "simpo")], Format.JSON)
    there = TypeAdapter(list[Comparison]).validate_json(text)
    back = list(csv.DictReader(io.StringIO(pairwise_text(report, [("simpo", "dpo")], Format.CSV))))
    assert [str(one.metric) for one in there] == [row["metric"] for row in back]
    for one, row in zip(there, back, strict=True):
        assert (str(one.a), row["a"]) == ("dpo", "simpo")
        assert one.difference == -float(row["difference"])
        assert one.low is not None
        assert one.high is not None
        assert (one.low, one.high) == (-float(row["high"]), -float(row["low"]))
        assert one.p_holm == float(row["p_holm"])
    assert pairwise_text(report, [("dpo", "simpo")], Format.MD).startswith("## dpo against simpo\n\n| metric |")


def test_json_on_a_terminal_is_inert_and_still_the_same() -> None:
    value = {"a": "\x1b[2J \u202e \ud800 \x00 \x85 我 é 😀"}
    text = inert_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert "我 é 😀" in text
    assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_a_tie_has_no_single_best(tmp_path: Path) -> None:
    rm = {"kind": "reward", "status": "done"}
    results = [
        {**rm, "name": name, "algorithm": name, "metrics": {"accuracy": {"value": value}}}
        for name, value in (("rm", 0.75), ("poe", 0.1 * 7.5), ("odin", 0.5))
    ]
    (tmp_path / "reports" / "even").mkdir(parents=True)
    (tmp_path / "reports" / "even" / "report.json").write_text(json.dumps({"version": 1, "results": results}))
    (found,) = past_runs(tmp_path / "runs", tmp_path / "reports")
    assert found.best == "rm (and 1 tied): accuracy 0.750"


def test_runs_are_listed_with_their_best(run: Run, tmp_path: Path) -> None:
    runs, reports = tmp_path / "runs", tmp_path / "reports"
    store = Store(runs)
    made, absent, other = (Address("adapter", digit * 20) for digit in "abc")
    for address in (made, other):
        with store.scratch(address) as folder:
            store.put(address, "dpo", folder, Cost(1.0, 2, 3), {})
    store.notes.save("demo", RunNote((made, absent)))
    store.notes.save("started", RunNote())
    write_report(reports / "demo", run.report(), ReportRows(run.scores, run.generations, pairs=run.pairs))
    (reports / "broken").mkdir()
    (reports / "broken" / "report.json").write_text('{"results": [')
    rm = {"algorithm": "rm", "kind": "reward", "status": "done"}
    results = [
        {**rm, "name": name, "algorithm": name, "metrics": {"accuracy": {"value": value, "more": 0}}}
        for name, value in (("rm", 0.5), ("poe", 0.75), ("judge", 0.9))
    ]
    for name, version in (("later", {"version": 1}), ("older", {}), ("newer", {"version": 2})):
        (reports / name).mkdir()
        (reports / name / "report.json").write_text(json.dumps({**version, "results": results, "more": []}))
    names = ("later", "broken", "older", "newer")
    for age, path in enumerate([*(reports / name / "report.json" for name in names), runs / "suites" / "started.json"]):
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    found = past_runs(runs, reports)
    assert [one.suite for one in found] == ["demo", *names, "started"]
    demo, later, broken, older, newer, started = found
    assert (demo.done, demo.failed, demo.skipped, demo.stored) == (6, 1, 1, 1)
    assert demo.report == reports / "demo"
    means = {one.name: one.metrics.judge_reward_mean.value for one in run.report().results}
    values = {name: mean for name, mean in means.items() if mean is not None}
    best = max(values, key=lambda name: values[name])
    assert f"{best}: judge {values[best]:.3f}" in demo.best
    assert (later.done, later.best) == (3, "poe: accuracy 0.750")
    assert (older.done, older.best) == (None, "a report of an older version")
    assert (newer.done, newer.best) == (None, "a report of a newer version")
    assert (broken.done, broken.best) == (None, "the report cannot be read")
    assert (started.done, started.best, started.report) == (None, "no report yet", None)

    section = history_section(found)
    rows = json.loads(section_text(section, Format.JSON))
    assert [row["suite"] for row in rows] == ["demo", *names, "started"]
    assert [row["done"] for row in rows] == [6, 3, None, None, None, None]
    assert rows[-1]["report"] == "n/a"
    for width in (80, 200):
        console = Console(file=io.StringIO(), width=width)
        console.print(section_table(section))
        assert "\x1b" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_nothing_run_says_where_to_start(tmp_path: Path) -> None:
    section = history_section(past_runs(tmp_path / "runs", tmp_path / "reports"))
    assert not section.rows
    assert "align-bench run assignment" in section.captions[0]
    assert section_text(section, Format.JSON) == "[]\n"
