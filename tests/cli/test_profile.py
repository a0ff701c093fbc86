"""`align-bench run --profile`: a trace of a few steps of each training, and the same numbers as without."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from align_bench.cli.main import app
from align_bench.report.export import read_report
from align_bench.report.schema import Metrics

pytestmark = pytest.mark.usefixtures("few_figures")

Write = Callable[..., Path]


def run(path: Path, root: Path, *options: str) -> str:
    """What the command says."""
    folders = ["--runs", str(root / "runs"), "--reports", str(root / "reports")]
    result = CliRunner().invoke(app, ["run", str(path), *folders, *options])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def metrics(root: Path) -> dict[str, Metrics]:
    return {found.name: found.metrics for found in read_report(root / "reports" / "small").results}


@pytest.fixture
def suite(write_suite: Write) -> Path:
    """Three steps a training: 24 rows in batches of eight."""
    return write_suite(judge=None, generate={"prompts": 2, "max_new_tokens": 2}, methods=["dpo"])


def test_two_steps_of_every_training_are_traced(suite: Path, tmp_path: Path) -> None:
    said = run(suite, tmp_path / "traced", "--profile")
    folder = tmp_path / "traced" / "runs" / "profile" / "small"
    assert sorted(path.name for path in folder.iterdir()) == ["dpo.json"]
    assert "dpo: trace in" in said
    events = json.loads((folder / "dpo.json").read_text(encoding="utf-8"))["traceEvents"]
    names = [event.get("name", "") for event in events]
    assert len({name for name in names if name.startswith("ProfilerStep")}) == 2
    assert "aten::mm" in names
    assert any("Backward" in name for name in names)
    assert any("AdamW" in name for name in names)
    run(suite, tmp_path / "plain")
    assert metrics(tmp_path / "traced") == metrics(tmp_path / "plain")
    assert "no training was left to do" in run(suite, tmp_path / "plain", "--profile")


def test_a_training_of_one_step_has_no_trace(suite: Path, tmp_path: Path) -> None:
    said = run(suite, tmp_path, "--profile", "--set", "train.batch_size=32")
    assert "none has more than one step" in said
    assert not (tmp_path / "runs" / "profile").exists()
