"""A suite whose methods read margins: it runs where every row has one, and says what lacks them otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from align_bench.data.planted import planted
from align_bench.planning.inputs import prepare
from align_bench.plugins.registry import load_registry
from align_bench.report.schema import Result
from align_bench.runner.run import Folders, run
from align_bench.suite.load import load_suite
from tests.runner.test_run import Recorder

ROWS = 24


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_pairs(path: Path, *, without: int) -> None:
    """Planted pairs with scores of both answers, but for the last ones."""
    rows: list[dict[str, Any]] = []
    for number, pair in enumerate(planted("train", rows=ROWS)):
        scores = {} if number >= ROWS - without else {"score_chosen": 1 + number % 4, "score_rejected": 0.5}
        rows.append({"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected, **scores})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def execute(suite: Path, root: Path) -> tuple[dict[str, Result], list[str]]:
    """What came of each cell, and the stages that were gone through."""
    prepared, progress = prepare(load_suite(str(suite)), load_registry()), Recorder()
    report = run(prepared, progress, Folders(root / "runs", root / "reports"), command="align-bench run small.yaml")
    return {result.name: result for result in report.results}, progress.stages


def test_methods_train_on_rows_with_a_margin_and_are_refused_on_others(
    tmp_path: Path, write_suite: Callable[..., Path]
) -> None:
    path = tmp_path / "pairs.jsonl"
    entry = {"path": str(path)}
    suite = write_suite(
        data={"train": entry, "val": {"path": "embedded/planted", "rows": 20}},  # whose pairs have none
        judge={"method": "margin_rm", "data": entry},
        methods=["odpo", "simpo"],
    )
    write_pairs(path, without=3)
    results, stages = execute(suite, tmp_path)
    assert {name: result.status for name, result in results.items()} == {
        "judge": "failed",
        "base": "done",
        "odpo": "failed",
        "simpo": "done",
    }
    said = "reads how much better the chosen answer is, and 3 of 24 rows of {split} do not say it (the first is row 21)"
    assert (results["odpo"].reason or "").endswith(f"odpo {said.format(split='train')}")
    assert (results["judge"].reason or "").endswith(f"margin_rm {said.format(split='judge')}")

    write_pairs(path, without=0)
    results, stages = execute(suite, tmp_path)
    assert {result.status for result in results.values()} == {"done"}
    assert {"odpo: train", "judge: train"} <= set(stages)
