"""What is committed of a report, and what is not."""

import subprocess
from pathlib import Path
from typing import Any

import published_reports
import pytest
from published_reports import publish, rebuild

from tests.recomputed.rich_suite import rich_suite


def test_rows_stay_behind_and_old_figures_go(tmp_path: Path) -> None:
    made, target = tmp_path / "made", tmp_path / "target"
    for folder, figure in ((made, "new.svg"), (target, "old.svg")):
        (folder / "figures").mkdir(parents=True)
        (folder / "figures" / figure).touch()
    for name in ("report.json", "report.md", "report.html", "scores.parquet"):
        (made / name).write_text("new")
    for name in ("report.json", "report.md"):
        (target / name).write_text("old")
    publish(made, target)
    assert sorted(path.name for path in target.iterdir()) == ["figures", "report.json", "report.md"]
    assert (target / "report.json").read_text() == "new"
    assert [path.name for path in (target / "figures").iterdir()] == ["new.svg"]


def test_a_new_report_is_published_without_its_page(tmp_path: Path) -> None:
    made = tmp_path / "made"
    (made / "figures").mkdir(parents=True)
    for name in ("report.json", "report.md", "report.html", "scores.parquet"):
        (made / name).touch()
    publish(made, tmp_path / "published" / "target")
    assert sorted(path.name for path in (tmp_path / "published" / "target").iterdir()) == [
        "figures",
        "report.json",
        "report.md",
    ]


def test_a_report_is_built_from_its_rows_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("align_bench.report.figures.DRAWN", ())
    folder = rich_suite().write(tmp_path / "report")
    text = (folder / "report.md").read_text(encoding="utf-8")
    (folder / "report.md").unlink()
    before = (folder / "report.json").read_bytes()
    rebuild(folder)
    assert (folder / "report.json").read_bytes() == before
    assert (folder / "report.md").read_text(encoding="utf-8") == text


def test_nothing_is_published_before_all_have_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed: list[bool] = []  # of every suite, whether the clone was changed as it ran
    options: list[list[str]] = []

    def run(command: list[str], *, cwd: str, **_: Any) -> None:
        changed.append((tmp_path / "clone").exists())
        at = command.index("run") + 1
        options.append(command[at + 1 :])
        made = Path(cwd, "reports", command[at])
        (made / "figures").mkdir(parents=True)
        for name in ("report.json", "report.md"):
            (made / name).write_text(command[at])

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(published_reports, "ROOT", tmp_path / "clone")
    published_reports.main(["one", "two", "--runs", str(tmp_path / "runs"), "--jobs", "2"])
    assert changed == [False, False]
    assert options == [["--jobs", "2"]] * 2
    for name in ("one", "two"):
        assert (tmp_path / "clone" / "reports" / "published" / name / "report.md").read_text() == name
