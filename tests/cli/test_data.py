"""`align-bench data`: what is wrong with rows is counted, named, and comes with a line of advice."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from align_bench.cli import main
from align_bench.errors import DataError

SUITE = """
name: leaky
base: embedded/tiny
precision: fp32
data: {train: train.jsonl, val: val.jsonl}
judge: {method: rm, data: train.jsonl}
methods: [dpo]
"""


@pytest.fixture
def leaky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A duplicate, a contradiction, and two of four validation prompts in train."""
    rows = [{"prompt": f"Say {n}!", "chosen": "Fine.", "rejected": "Never."} for n in (0, 0, 1, 2, 3, 4, 5, 6)]
    rows.insert(2, {"prompt": "Say 0!", "chosen": "Never.", "rejected": "Fine."})
    val = [{"prompt": f"Say {n}!", "chosen": "Fine.", "rejected": "Never."} for n in (0, 1, 20, 21)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in val), encoding="utf-8")
    (tmp_path / "leaky.yaml").write_text(SUITE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, code: int = 0) -> str:
    answer = CliRunner().invoke(main.app, arguments, env={"COLUMNS": "200"})
    assert answer.exit_code == code, answer.output
    return answer.output


def checks(*arguments: str) -> dict[str, dict[str, Any]]:
    found = json.loads(run("data", *arguments, "--format", "json"))
    return {check["what"]: check for check in found["checks"]}


@pytest.mark.usefixtures("leaky")
def test_a_duplicate_a_contradiction_and_shared_prompts_are_counted_and_named() -> None:
    found = checks("train.jsonl", "--against", "val.jsonl")
    counted = {what: (check["rows"], check["of"], check["first"]) for what, check in found.items() if check["advice"]}
    assert counted == {
        "duplicate pairs": (1, 9, [1]),
        "contradictory pairs": (3, 9, [0, 1, 2]),
        "prompts of val.jsonl": (4, 9, [0, 1, 2]),
    }
    shown = run("data", "train.jsonl", "--against", "val.jsonl")
    for words in ("contradictory pairs +3 +9 +33.3% +0, 1, 2", "duplicate pairs +1 ", "prompts of val.jsonl +4 "):
        assert re.search(words, shown), shown
    assert "contradictory pairs: nothing can learn both labels" in shown


@pytest.mark.usefixtures("leaky")
def test_the_splits_of_a_suite_are_looked_at_one_by_one() -> None:
    found = checks("val.jsonl", "--against", "leaky.yaml")
    shared = {what: check["rows"] for what, check in found.items() if what.startswith("prompts of")}
    assert shared == {"prompts of train of leaky.yaml": 2, "prompts of judge of leaky.yaml": 2}


@pytest.mark.usefixtures("leaky")
def test_what_a_base_makes_of_the_rows() -> None:
    found = checks("train.jsonl", "--base", "embedded/tiny", "--max-length", "9")
    beyond = found["beyond 9 tokens"]["rows"]
    dropped = sum(check["rows"] for what, check in found.items() if what.startswith("dropped"))
    assert beyond + dropped > 0
    assert "beyond 1024 tokens" in checks("train.jsonl", "--base", "embedded/tiny")


@pytest.mark.usefixtures("leaky")
def test_the_other_formats_hold_the_same_checks() -> None:
    assert "duplicate pairs,1,9," in run("data", "train.jsonl", "--format", "csv")
    assert re.search(r"\| duplicate pairs +\| +1 \|", run("data", "train.jsonl", "--format", "md"))


def test_several_files_are_one_set(leaky: Path) -> None:
    (leaky / "more.jsonl.gz").write_bytes(gzip.compress((leaky / "val.jsonl").read_bytes()))
    assert checks("train.jsonl", "more.jsonl.gz")["duplicate pairs"]["of"] == 13
    assert checks("train.jsonl", "more.jsonl.gz")["duplicate pairs"]["rows"] == 3


@pytest.mark.usefixtures("leaky")
@pytest.mark.parametrize("command", ["plan", "run"])
def test_strict_refuses_prompts_that_are_measured_on_and_trained_on(command: str) -> None:
    answer = CliRunner().invoke(main.app, [command, "leaky.yaml", "--strict"])
    assert isinstance(answer.exception, DataError)
    assert "2 of the 4 rows of val share a prompt with train" in str(answer.exception)
    assert "2 of the 4 rows of val share a prompt with judge" in str(answer.exception)
    assert not Path("runs").exists()
