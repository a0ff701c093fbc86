"""The published schema of `report.json`. A change of it is a change of the format: give it another version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import TypeAdapter, ValidationError
from typer.testing import CliRunner

from align_bench.cli.main import app
from align_bench.records import CellId
from align_bench.report.schema import VERSION, Report

if TYPE_CHECKING:
    from tests.report.conftest import Run

PUBLISHED = Path(__file__).parents[2] / "reports" / "report.schema.json"


def test_the_published_schema_is_what_the_command_prints() -> None:
    found = CliRunner().invoke(app, ["schema", "--report"])
    assert found.exit_code == 0
    assert json.loads(found.output) == json.loads(PUBLISHED.read_text(encoding="utf-8"))


def test_every_field_of_a_report_is_required_in_its_schema_and_says_its_version() -> None:
    schema = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    assert schema["properties"]["version"]["const"] == VERSION
    assert set(schema["required"]) == set(Report.model_fields)


def test_a_report_is_what_its_json_says(shared_run: Run) -> None:
    report = shared_run.report()
    assert Report.model_validate_json(report.model_dump_json()) == report
    assert json.loads(report.model_dump_json())["version"] == VERSION


def test_a_cells_id_says_its_text_in_json_and_nothing_else_is_read() -> None:
    adapter = TypeAdapter(CellId)
    cell = CellId("rm", (("learning_rate", 1e-5), ("n", 2), ("hard", True), ("revision", None)), seed=3, run="a")
    written = adapter.dump_json(cell)
    assert json.loads(written) == {
        "text": "a/rm[learning_rate=1e-05,n=2,hard=True,revision=None]#3",
        "name": "rm",
        "parameters": {"learning_rate": 1e-5, "n": 2, "hard": True, "revision": None},
        "seed": 3,
        "trial": None,
        "run": "a",
    }
    assert adapter.validate_json(written) == cell
    for wrong in (json.loads(written) | {"more": 1}, {"text": "rm", "name": "rm"}, "rm"):
        with pytest.raises(ValidationError):
            adapter.validate_json(json.dumps(wrong))
