"""What `align-bench verify` finds: nothing in a run as it was left, and each thing that was changed afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from align_bench.errors import MissingResultError
from align_bench.planning.inputs import prepare
from align_bench.plugins.registry import load_registry
from align_bench.report.export import REPORT, SCORES
from align_bench.report.rows import CHECKSUMS
from align_bench.runner.results import Results
from align_bench.runner.run import Folders
from align_bench.runner.verify import Check, stored_graph, verify
from align_bench.store.store import MANIFEST, Store
from align_bench.suite.load import load_suite
from tests.runner.test_run import Recorder, execute


@pytest.fixture(scope="module")
def ran(small_suite: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Folders]:
    root = tmp_path_factory.mktemp("verified")
    path = root / "small.yaml"
    path.write_text(json.dumps({**small_suite, "audit": {"pairs": 20}, "methods": ["dpo"]}), encoding="utf-8")
    folders = Folders(root / "runs", root / "reports")
    execute(path, folders)
    return path, folders


def checks(path: Path, folders: Folders, sample: int = 0) -> list[Check]:
    suite = load_suite(str(path))
    prepared, results = prepare(suite, load_registry()), Results(Store(folders.runs), read_only=True)
    graph = stored_graph(prepared, results)
    found = verify(prepared, graph, results, folders.reports / suite.name, Recorder(), sample=sample, seed=0)
    return list(found)


def copied(ran: tuple[Path, Folders], tmp_path: Path) -> tuple[Path, Folders]:
    path, folders = ran
    shutil.copytree(folders.runs, tmp_path / "runs")
    shutil.copytree(folders.reports, tmp_path / "reports")
    return path, Folders(tmp_path / "runs", tmp_path / "reports")


def test_a_run_as_it_was_left_holds_and_every_result_is_made_again_bit_for_bit(ran: tuple[Path, Folders]) -> None:
    path, folders = ran
    found = checks(path, folders, sample=1000)
    assert [one for one in found if not one.held] == []
    assert len(found) > 8
    assert {one.said for one in found[2:]} == {"the same bytes"}
    assert not (folders.runs / ".partial").exists() or not any((folders.runs / ".partial").iterdir())


def edit_report(folders: Folders) -> None:
    file = folders.reports / "small" / REPORT
    report = json.loads(file.read_text(encoding="utf-8"))
    report["results"][-1]["metrics"]["accuracy"]["value"] = 0.999
    file.write_text(json.dumps(report), encoding="utf-8")


def edit_report_and_its_checksum(folders: Folders) -> None:
    edit_report(folders)
    (folders.reports / "small" / CHECKSUMS).unlink()


def drop_rows(folders: Folders) -> None:
    file = folders.reports / "small" / SCORES
    pq.write_table(pq.read_table(file).slice(1), file)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (edit_report, "was changed after it was written"),
        (edit_report_and_its_checksum, "1 numbers or words differ, such as results"),
        (drop_rows, "was changed after it was written"),
    ],
)
def test_a_report_that_was_edited_is_found(
    ran: tuple[Path, Folders], tmp_path: Path, edit: Callable[[Folders], None], said: str
) -> None:
    path, folders = copied(ran, tmp_path)
    edit(folders)
    (lost,) = [one for one in checks(path, folders) if not one.held]
    assert said in lost.said
    execute(path, folders)  # a run rebuilds what does not match
    assert all(one.held for one in checks(path, folders)) or edit is edit_report_and_its_checksum


@pytest.mark.parametrize("name", ["kind", "facts", "cost"])
def test_a_manifest_that_was_edited_is_found_and_made_anew(
    ran: tuple[Path, Folders], tmp_path: Path, name: str
) -> None:
    path, folders = copied(ran, tmp_path)
    file = next((folders.runs / "adapter").glob(f"dpo-*/{MANIFEST}"))
    manifest = json.loads(file.read_text(encoding="utf-8"))
    changed = {
        "kind": "audit",
        "facts": {**manifest["facts"], "steps": 1},
        "cost": {**manifest["cost"], "seconds": 0.0},
    }
    file.write_text(json.dumps({**manifest, name: changed[name]}), encoding="utf-8")
    found = checks(path, folders)
    assert "dpo: train" in found[0].said
    assert not found[0].held
    assert {result.status for result in execute(path, folders).results} == {"done"}
    assert all(one.held for one in checks(path, folders))


def test_nothing_stored_is_told(ran: tuple[Path, Folders], tmp_path: Path) -> None:
    with pytest.raises(MissingResultError, match="nothing of the suite small is stored"):
        checks(ran[0], Folders(tmp_path / "runs", tmp_path / "reports"))
