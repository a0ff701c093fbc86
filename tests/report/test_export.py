from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from align_bench.errors import MissingResultError, StoreError
from align_bench.report.build import build_report
from align_bench.report.export import (
    SCORE_COLUMNS,
    TRAINING_COLUMNS,
    read_generations,
    read_pairs,
    read_report,
    read_scores,
    read_training,
    recompute,
    write_report,
)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take seconds; what they are is tested elsewhere."""
    monkeypatch.setattr("align_bench.report.figures.DRAWN", ())


def test_the_report_can_be_recomputed_from_its_exports(run: Any, tmp_path: Path) -> None:
    report = run.report()
    write_report(tmp_path / "new" / "demo", report, run.scores, run.generations, pairs=run.pairs)
    folder = tmp_path / "new" / "demo"
    assert read_report(folder) == report
    assert read_generations(folder) == run.generations
    assert read_pairs(folder) == run.pairs
    rows = read_scores(folder), read_generations(folder)
    assert build_report(run.header, run.outcomes, *rows, pairs=read_pairs(folder)) == report
    assert recompute(folder) == report
    assert sorted(path.name for path in folder.iterdir()) == [
        "Response_of_DPO_n_Ori_val_with_rm.json",
        "Response_of_SIMPO_n_Ori_val_with_rm.json",
        "Response_of_red_x_red_script_alert_1_script_a_b_2J_n_Ori_val_with_rm.json",
        "Rm_model_mark_on_val_1k.json",
        "audit.parquet",
        "figures",
        "generations.jsonl",
        "pairs.parquet",
        "report.html",
        "report.json",
        "report.md",
        "scores.parquet",
        "tables",
        "training.parquet",
    ]


def test_a_changed_row_changes_the_recomputed_report(run: Any, tmp_path: Path) -> None:
    report = run.report()
    scores = [{**row, "chosen_reward": -row["chosen_reward"]} for row in run.scores]
    write_report(tmp_path, report, scores, run.generations)
    assert recompute(tmp_path) != report


def test_scores_keep_their_columns_order_and_nulls(run: Any, tmp_path: Path) -> None:
    scores = [{**row, "extra": index} for index, row in enumerate(run.scores)]
    write_report(tmp_path, run.report(), scores, run.generations)
    assert pq.read_schema(tmp_path / "scores.parquet").names == [*SCORE_COLUMNS, "extra"]
    assert list(SCORE_COLUMNS)[:9] == [
        *("cell", "algorithm", "seed", "pair", "chosen_reward", "rejected_reward", "chosen_tokens", "rejected_tokens"),
        "gold_choice",
    ]
    assert read_scores(tmp_path) == scores


def test_absent_columns_are_null(run: Any, tmp_path: Path) -> None:
    scores = [{"cell": "dpo", "pair": 0, "chosen_reward": math.inf, "rejected_reward": 1}]
    write_report(tmp_path, run.report(), scores, [])
    (row,) = read_scores(tmp_path)
    assert (row["chosen_reward"], row["rejected_reward"], row["gold_choice"]) == (math.inf, 1.0, None)


def test_training_steps_are_read_back_with_what_each_method_measures(run: Any, tmp_path: Path) -> None:
    common = {"algorithm": "dpo", "seed": 0, "learning_rate": 0.0, "gradient_norm": 1.0, "seconds": 2.5}
    steps = [
        {"cell": "dpo", "step": 1, "loss": 0.69, "margin": 0, **common},
        {"cell": "dpo", "step": 2, "loss": 0.5, "margin": 0.25, **common},
        {"cell": "ppo", "step": 1, "loss": -0.1, "kl": 1.5, **common},
    ]
    write_report(tmp_path, run.report(), run.scores, run.generations, steps)
    assert pq.read_schema(tmp_path / "training.parquet").names == [*TRAINING_COLUMNS, "margin", "kl"]
    absent = {"margin": None, "kl": None}
    assert read_training(tmp_path) == [{**absent, **step} for step in steps]


def test_hostile_answers_stay_one_line_each(run: Any, tmp_path: Path) -> None:
    odd = replace(run.generations[0], text='a\nb\r\u2028"c"\x00 \ud800 我', scores={"rm": math.nan, "gold": 1.0})
    write_report(tmp_path, run.report(), run.scores, [odd, *run.generations[1:]])
    lines = (tmp_path / "generations.jsonl").read_bytes().decode("utf-8").split("\n")
    assert len(lines) == len(run.generations) + 1
    assert json.loads(lines[0])["scores"] == {"rm": None, "gold": 1.0}
    read = read_generations(tmp_path)[0]
    assert read.text == odd.text
    assert math.isnan(read.scores["rm"])


def test_a_failed_write_leaves_the_old_file(run: Any, tmp_path: Path) -> None:
    write_report(tmp_path, run.report(), run.scores, run.generations)
    before = {path.name: path.read_bytes() for path in tmp_path.rglob("*.*")}
    with pytest.raises(Exception, match="convert"):
        write_report(tmp_path, run.report(), [{"cell": "dpo", "pair": "none"}], run.generations)
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_missing_and_damaged_files_are_named(run: Any, tmp_path: Path) -> None:
    for read in (read_report, read_scores, read_generations):
        with pytest.raises(MissingResultError, match="There is no"):
            read(tmp_path)
    for name in ("report.json", "scores.parquet", "generations.jsonl"):
        (tmp_path / name).write_bytes(b'{"cell": "\xff')
    for read in (read_report, read_scores, read_generations):
        with pytest.raises(StoreError, match="damaged"):
            read(tmp_path)
    (tmp_path / "report.json").write_text("[]")
    with pytest.raises(StoreError, match="is no report"):
        read_report(tmp_path)
