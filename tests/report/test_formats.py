from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from align_bench.records import Cost
from align_bench.report.export import write_report
from align_bench.report.formats import Format, json_text, pairwise_text, report_text, section_text
from align_bench.report.history import history_section, past_runs
from align_bench.report.markdown import render
from align_bench.report.tables import section_table
from align_bench.store.keys import Address
from align_bench.store.store import Store


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take seconds; what they are is tested elsewhere."""
    monkeypatch.setattr("align_bench.report.figures.DRAWN", ())


def test_a_report_as_each_text(run: Any) -> None:
    report = run.report()
    assert json.loads(report_text(report, Format.JSON)) == report
    assert report_text(report, Format.MD) == render(report)
    rows = list(csv.DictReader(io.StringIO(report_text(report, Format.CSV))))
    known = [one["metrics"]["margin"]["value"] for one in report["results"]]
    assert [float(row["value"]) for row in rows if row["metric"] == "margin"] == [
        one for one in known if one is not None
    ]


def test_a_comparison_as_each_text(run: Any) -> None:
    report = run.report()
    there = json.loads(pairwise_text(report, [("dpo", "simpo")], Format.JSON))
    back = list(csv.DictReader(io.StringIO(pairwise_text(report, [("simpo", "dpo")], Format.CSV))))
    assert [one["metric"] for one in there] == [row["metric"] for row in back]
    for one, row in zip(there, back, strict=True):
        assert (one["a"], row["a"]) == ("dpo", "simpo")
        assert one["difference"] == -float(row["difference"])
        assert (one["low"], one["high"]) == (-float(row["high"]), -float(row["low"]))
        assert one["p_holm"] == float(row["p_holm"])
    assert pairwise_text(report, [("dpo", "simpo")], Format.MD).startswith("## dpo against simpo\n\n| metric |")


def test_json_on_a_terminal_is_inert_and_still_the_same() -> None:
    value = {"a": "\x1b[2J \u202e \ud800 \x00 \x85 我 é 😀"}
    text = json_text(value)
    assert json.loads(text) == value
    assert "我 é 😀" in text
    assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_runs_are_listed_with_their_best(run: Any, tmp_path: Path) -> None:
    runs, reports = tmp_path / "runs", tmp_path / "reports"
    store = Store(runs)
    made, absent, other = (Address("adapter", digit * 20) for digit in "abc")
    for address in (made, other):
        with store.scratch(address) as folder:
            store.put(address, "dpo", folder, Cost(1.0, 2, 3), {})
    store.note("demo", {"needs": [str(made), str(absent)]})
    store.note("started", {"needs": []})
    write_report(reports / "demo", run.report(), run.scores, run.generations, pairs=run.pairs)
    (reports / "broken").mkdir()
    (reports / "broken" / "report.json").write_text('{"results": [')
    (reports / "older").mkdir()
    rm = {"cell": "rm", "algorithm": "rm", "kind": "reward", "status": "done"}
    worse, better, judge = ({**rm, "metrics": {"accuracy": {"value": value}}} for value in (0.5, 0.75, 0.9))
    old = {"results": [worse, {**better, "cell": "poe"}, {**judge, "algorithm": "judge", "cell": "judge"}]}
    (reports / "older" / "report.json").write_text(json.dumps(old))
    for age, path in enumerate(
        (reports / "broken" / "report.json", reports / "older" / "report.json", runs / "suites" / "started.json")
    ):
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    found = past_runs(runs, reports)
    assert [one.suite for one in found] == ["demo", "broken", "older", "started"]
    demo, broken, older, started = found
    assert (demo.done, demo.failed, demo.skipped, demo.stored) == (6, 1, 1, 1)
    assert demo.report == reports / "demo"
    values = {one["cell"]: one["metrics"]["judge_reward_mean"]["value"] for one in run.report()["results"]}
    best = max((cell for cell in values if values[cell] is not None), key=lambda cell: values[cell])
    assert f"{best}: judge {values[best]:.3f}" in demo.best
    assert (older.done, older.best) == (3, "poe: accuracy 0.750")
    assert (broken.done, broken.best) == (None, "the report cannot be read")
    assert (started.done, started.best, started.report) == (None, "no report yet", None)

    section = history_section(found)
    rows = json.loads(section_text(section, Format.JSON))
    assert [row["suite"] for row in rows] == ["demo", "broken", "older", "started"]
    assert rows[3]["report"] == "n/a"
    for width in (80, 200):
        console = Console(file=io.StringIO(), width=width)
        console.print(section_table(section, hidden=set()))
        assert "\x1b" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_nothing_run_says_where_to_start(tmp_path: Path) -> None:
    section = history_section(past_runs(tmp_path / "runs", tmp_path / "reports"))
    assert not section.rows
    assert "align-bench run assignment" in section.captions[0]
    assert section_text(section, Format.JSON) == "[]\n"
