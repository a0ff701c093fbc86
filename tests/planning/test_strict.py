"""`--strict` refuses prompts that are measured on and trained on, and only these."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from align_bench.data.preferences import DataSource
from align_bench.errors import DataError
from align_bench.planning.strict import refuse_shared_prompts
from align_bench.stages.rows import Rows


def rows(path: Path, *prompts: str) -> Rows:
    lines = [json.dumps({"prompt": prompt, "chosen": "good", "rejected": "bad"}) + "\n" for prompt in prompts]
    path.write_text("".join(lines), encoding="utf-8")
    return Rows(DataSource(str(path)), str(path))


def test_sets_that_share_no_prompt_pass(tmp_path: Path) -> None:
    train, val, test = (
        rows(tmp_path / "a.jsonl", "q0", "q0"),
        rows(tmp_path / "b.jsonl", "q1"),
        rows(tmp_path / "c.jsonl", "q1"),
    )
    refuse_shared_prompts({"train": train, "val": val, "test": test, "judge": train})


def test_every_shared_prompt_is_counted_and_named(tmp_path: Path) -> None:
    train, judge = rows(tmp_path / "train.jsonl", "q0", "q1", "q2"), rows(tmp_path / "judge.jsonl", "q9", "q5")
    val, test = rows(tmp_path / "val.jsonl", "q7", "q1", "q1", "q5"), rows(tmp_path / "test.jsonl", "q9")
    with pytest.raises(DataError) as caught:
        refuse_shared_prompts({"train": train, "val": val, "test": test, "judge": judge})
    said = str(caught.value)
    assert "2 of the 4 rows of val share a prompt with train (row 1, " in said
    assert "1 of the 4 rows of val share a prompt with judge (row 3, " in said
    assert "1 of the 1 rows of test share a prompt with judge (row 0, " in said
    assert said.count("share a prompt with") == 3
    assert "prompts: [0.9, 1]" in said
