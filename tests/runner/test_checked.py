"""What a report says of rows is counted from the rows that are read."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from align_bench.data.preferences import DataSource
from align_bench.report.schema import ExaminedRows
from align_bench.runner.checked import examined_rows
from align_bench.stages.rows import Rows


def examined(folder: Path, split: str, **splits: list[tuple[str, str, str]]) -> ExaminedRows:
    rows = {}
    for name, cells in splits.items():
        path = folder / f"{name}.jsonl"
        lines = [json.dumps(dict(zip(("prompt", "chosen", "rejected"), row, strict=True))) + "\n" for row in cells]
        path.write_text("".join(lines), encoding="utf-8")
        rows[name] = Rows(DataSource(str(path)), str(path))
    prepared: Any = SimpleNamespace(inputs=SimpleNamespace(rows=rows))
    results = SimpleNamespace(preferences=lambda wanted: cast("Rows", wanted).read())
    return examined_rows(split, prepared, cast("Any", results))


def test_duplicates_contradictions_and_shared_prompts(tmp_path: Path) -> None:
    train = [
        ("q0", "yes", "no"),
        ("q0", "yes", "no"),
        ("q0", "no", "yes"),
        ("q1", "yes it is", "no"),
        ("q2", "a", "b c"),
    ]
    val = [("q0", "yes", "no"), ("q1", "yes", "no"), ("q7", "yes", "no"), ("что нового?", "всё", "ничего")]
    found = {
        split: examined(tmp_path, split, train=train, val=val, judge=val[2:]) for split in ("train", "val", "judge")
    }
    of_train = found["train"]
    assert (of_train.rows, of_train.duplicates, of_train.contradictions, of_train.repeated_prompts) == (5, 1, 3, 2)
    assert (of_train.longer_preferred, of_train.equally_long, of_train.pairs) == (1, 3, 5)
    assert (of_train.prompt_words, of_train.chosen_words, of_train.rejected_words) == (1, 1, 1)
    shared = {split: (one.prompts_in_train, one.prompts_in_val) for split, one in found.items()}
    assert shared == {"train": (None, 4), "val": (2, None), "judge": (0, 2)}
    assert found["val"].scripts == {"Latin": 3, "Cyrillic": 1}
