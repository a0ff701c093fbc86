"""Rows of a run are those that its keys are of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from align_bench.data.fingerprint import fingerprint
from align_bench.data.preferences import DataSource
from align_bench.errors import DataError
from align_bench.runner.results import Results
from align_bench.stages.rows import Rows
from align_bench.store.store import Store


def write(path: Path, answer: str) -> None:
    path.write_text(json.dumps({"prompt": "q", "chosen": answer, "rejected": "bad"}) + "\n", encoding="utf-8")


@pytest.mark.parametrize("planned", [False, True], ids=["not read before", "read by the plan"])
def test_a_file_that_was_changed_since_the_plan_is_refused(tmp_path: Path, planned: bool) -> None:
    path = tmp_path / "rows.jsonl"
    source = DataSource(str(path))
    write(path, "first")
    rows = Rows(source, fingerprint(source))
    if planned:
        rows.read()
    write(path, "second")
    with pytest.raises(DataError, match=r"rows\.jsonl was changed during the run"):
        Results(Store(tmp_path / "runs")).preferences(rows)
    write(path, "first")
    assert Results(Store(tmp_path / "runs")).preferences(rows).rows[0].chosen == "first"
