from __future__ import annotations

import gc
import json
import math
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from align_bench.errors import MissingResultError, StoreError
from align_bench.records import TrainingText
from align_bench.report.build import build_report
from align_bench.report.compare import read_run
from align_bench.report.course import training_keywords
from align_bench.report.export import (
    ReportRows,
    read_generations,
    read_pairs,
    read_report,
    read_scores,
    read_training,
    recompute,
    write_report,
)
from align_bench.report.rows import AttackedScores, ScoreRow, TrainingRow

if TYPE_CHECKING:
    from tests.report.conftest import Run


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take seconds; what they are is tested elsewhere."""
    monkeypatch.setattr("align_bench.report.figures.DRAWN", ())


def test_the_report_can_be_recomputed_from_its_exports(run: Run, tmp_path: Path) -> None:
    report = run.report()
    folder = tmp_path / "new" / "demo"
    write_report(folder, report, run.rows)
    assert read_report(folder) == report
    assert read_generations(folder) == run.generations
    assert read_pairs(folder) == run.pairs
    rows = read_scores(folder), read_generations(folder)
    assert build_report(run.header, run.outcomes, *rows, pairs=read_pairs(folder)) == report
    assert recompute(folder) == report
    assert sorted(path.name for path in folder.iterdir()) == [
        "Response_of_DPO_n_Ori_val_with_rm.json",
        "Response_of_RED_X_RED_SCRIPT_ALERT_1_SCRIPT_A_B_2J_n_Ori_val_with_rm.json",
        "Response_of_SIMPO_n_Ori_val_with_rm.json",
        "Rm_model_mark_on_val_1k.json",
        "audit.parquet",
        "checksums.json",
        "figures",
        "generations.jsonl",
        "pairs.parquet",
        "report.html",
        "report.json",
        "report.md",
        "scores.parquet",
        "tables",
        "training.parquet",
        "training_texts.parquet",
    ]


def test_training_keywords_are_of_the_exported_texts(run: Run, tmp_path: Path) -> None:
    texts = [TrainingText(0, "An animal is a dog."), TrainingText(3, "dog")]
    header = run.header.model_copy(update={"training_keywords": training_keywords(texts)})
    report = replace(run, header=header).report()
    write_report(tmp_path, report, replace(run.rows, texts=texts))
    assert recompute(tmp_path) == report
    write_report(tmp_path, report, replace(run.rows, texts=texts[:1]))
    found = recompute(tmp_path).training_keywords
    assert found is not None
    assert found.texts == 1


def test_a_changed_row_changes_the_recomputed_report(run: Run, tmp_path: Path) -> None:
    report = run.report()
    scores = [replace(row, chosen_reward=-(row.chosen_reward or 0)) for row in run.scores]
    write_report(tmp_path, report, replace(run.rows, scores=scores))
    assert recompute(tmp_path) != report


def test_scores_keep_their_columns_order_and_nulls(run: Run, tmp_path: Path) -> None:
    attacked = (AttackedScores(0.1, 0.5, None), AttackedScores(0.5, math.inf, -1.0))
    scores = [replace(row, attacked=attacked if index % 2 else ()) for index, row in enumerate(run.scores)]
    write_report(tmp_path, run.report(), replace(run.rows, scores=scores))
    names = pq.read_schema(tmp_path / "scores.parquet").names
    assert names == [field.name for field in fields(ScoreRow)]
    assert names[:9] == [
        *("cell", "algorithm", "seed", "pair", "chosen_reward", "rejected_reward", "chosen_tokens", "rejected_tokens"),
        "gold_choice",
    ]
    assert pq.read_table(tmp_path / "scores.parquet")["attacked"][1].as_py() == [
        {"epsilon": 0.1, "chosen_reward": 0.5, "rejected_reward": None},
        {"epsilon": 0.5, "chosen_reward": math.inf, "rejected_reward": -1.0},
    ]
    assert read_scores(tmp_path) == scores


def test_what_a_row_does_not_say_is_null(run: Run, tmp_path: Path) -> None:
    row = ScoreRow(cell="dpo", algorithm="dpo", seed=0, pair=0, chosen_reward=math.inf, rejected_reward=1)
    write_report(tmp_path, run.report(), ReportRows([row], []))
    (read,) = read_scores(tmp_path)
    assert (read.chosen_reward, read.rejected_reward, read.gold_choice) == (math.inf, 1.0, None)


def test_training_steps_are_read_back_with_what_each_method_measures(run: Run, tmp_path: Path) -> None:
    steps = [
        TrainingRow("dpo", "dpo", 0, 1, 0.69, 0.0, 1.0, 2.5, {"margin": 0}),
        TrainingRow("dpo", "dpo", 0, 2, 0.5, 0.0, 1.0, 2.5, {"margin": 0.25}),
        TrainingRow("ppo", "ppo", 0, 1, -0.1, 0.0, 1.0, 2.5, {"kl": 1.5}),
    ]
    write_report(tmp_path, run.report(), replace(run.rows, training=steps))
    known = [field.name for field in fields(TrainingRow) if field.name != "measures"]
    assert pq.read_schema(tmp_path / "training.parquet").names == [*known, "margin", "kl"]
    assert read_training(tmp_path) == steps


def test_hostile_answers_stay_one_line_each(run: Run, tmp_path: Path) -> None:
    odd = replace(run.generations[0], text='a\nb\r\u2028"c"\x00 \ud800 我', scores={"rm": math.nan, "gold": 1.0})
    write_report(tmp_path, run.report(), replace(run.rows, generations=[odd, *run.generations[1:]]))
    lines = (tmp_path / "generations.jsonl").read_bytes().decode("utf-8").split("\n")
    assert len(lines) == len(run.generations) + 1
    assert json.loads(lines[0])["scores"] == {"rm": None, "gold": 1.0}
    assert json.loads(lines[1]) == asdict(run.generations[1])
    read = read_generations(tmp_path)[0]
    assert read.text == odd.text
    assert math.isnan(read.scores["rm"])


def test_writing_leaves_the_collector_of_cycles_as_it_was(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr("align_bench.report.export.write_text", lambda *_: seen.append(gc.isenabled()))
    monkeypatch.setattr("align_bench.report.export.file_digest", lambda _: "")
    assert gc.isenabled()
    write_report(tmp_path, run.report(), run.rows)
    assert gc.isenabled()
    gc.disable()
    try:
        write_report(tmp_path, run.report(), run.rows)
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert seen
    assert not any(seen)


def test_a_failed_write_leaves_the_old_file(run: Run, tmp_path: Path) -> None:
    write_report(tmp_path, run.report(), run.rows)
    before = {path.name: path.read_bytes() for path in tmp_path.rglob("*.*")}
    odd = replace(run.scores[0], pair="none")  # type: ignore[arg-type]
    with pytest.raises(Exception, match="convert"):
        write_report(tmp_path, run.report(), replace(run.rows, scores=[odd]))
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_missing_and_damaged_files_are_named(run: Run, tmp_path: Path) -> None:
    for read in (read_report, read_scores, read_generations):
        with pytest.raises(MissingResultError, match="There is no"):
            read(tmp_path)
    for name in ("report.json", "scores.parquet", "generations.jsonl"):
        (tmp_path / name).write_bytes(b'{"cell": "\xff')
    for read in (read_report, read_scores, read_generations):
        with pytest.raises(StoreError, match="damaged"):
            read(tmp_path)
    (tmp_path / "report.json").write_text("[]")
    with pytest.raises(StoreError, match="is not a report"):
        read_report(tmp_path)


def test_a_report_of_another_version_is_refused_in_words(run: Run, tmp_path: Path) -> None:
    content = json.loads(run.report().model_dump_json())
    (tmp_path / "report.json").write_text(json.dumps(content | {"version": 2}))
    with pytest.raises(StoreError, match="of format version 2, expected 1"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text(json.dumps({"results": [], "comparisons": []}))
    with pytest.raises(StoreError, match="of the format before version 1, expected 1"):
        read_report(tmp_path)


def test_a_damaged_value_is_named_with_its_place(run: Run, tmp_path: Path) -> None:
    content = json.loads(run.report().model_dump_json())
    content["results"][0]["metrics"]["accuracy"]["value"] = "high"
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(StoreError, match=r"damaged: results\.0\.metrics\.accuracy\.value"):
        read_report(tmp_path)


def test_rows_of_other_columns_are_refused_on_one_line(run: Run, tmp_path: Path) -> None:
    write_report(tmp_path, run.report(), run.rows)
    (tmp_path / "pairs.parquet").replace(tmp_path / "scores.parquet")
    with pytest.raises(StoreError, match="was changed after it was written"):
        read_scores(tmp_path)
    (tmp_path / "checksums.json").unlink()
    with pytest.raises(StoreError, match=r"is damaged, or of another version: 0\.cell: Field required") as raised:
        read_scores(tmp_path)
    assert "\n" not in raised.value.message


def test_a_number_that_is_text_is_refused_as_the_schema_says(run: Run, tmp_path: Path) -> None:
    content = json.loads(run.report().model_dump_json())
    content["results"][0]["metrics"]["accuracy"]["value"] = "0.5"
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(StoreError, match=r"damaged: results\.0\.metrics\.accuracy\.value"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text(json.dumps(content | {"version": "1"}))
    with pytest.raises(StoreError, match="format version '1', expected 1"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text("[" * 100_000)
    with pytest.raises(StoreError, match="is not a report, or is damaged"):
        read_report(tmp_path)


def test_a_row_that_stands_twice_is_damage(run: Run, tmp_path: Path) -> None:
    write_report(tmp_path, run.report(), run.rows)
    lines = (tmp_path / "generations.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "generations.jsonl").write_text("".join([*lines, lines[0]]), encoding="utf-8")
    (tmp_path / "checksums.json").unlink()
    with pytest.raises(StoreError, match="is damaged: more than one generation of"):
        read_run(tmp_path)
