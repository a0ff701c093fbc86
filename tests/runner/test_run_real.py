"""The packaged suite `real` on a model and rows of the user's own: base and data are all that it asks for."""

from __future__ import annotations

import json
from pathlib import Path

from align_bench.data.planted import planted
from align_bench.planning.graph import make_graph
from align_bench.planning.inputs import prepare
from align_bench.plugins.registry import load_registry
from align_bench.runner.progress import NoProgress
from align_bench.runner.results import Results
from align_bench.runner.run import Folders, run
from align_bench.store.store import Store
from align_bench.suite.load import load_suite


def test_real_runs_on_base_and_data_alone(base_folder: Path, tmp_path: Path) -> None:
    """Its judge is trained on prompts that no method sees."""
    for split, count in (("train", 60), ("val", 12)):
        rows = [
            {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}
            for pair in planted(split, rows=count)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"extends: real\nname: mine\nbase: {base_folder}\ndata: {{train: train.jsonl, val: val.jsonl}}\n"
        "methods: [rm, dpo]\n",
        encoding="utf-8",
    )
    quick = ["generate.prompts=3", "generate.max_new_tokens=4", "audit.pairs=0"]
    prepared = prepare(load_suite(str(path), quick), load_registry())
    folders = Folders(tmp_path / "runs", tmp_path / "reports")
    report = run(prepared, NoProgress(), folders, command="align-bench run mine.yaml")
    assert {result.name: result.status for result in report.results} == dict.fromkeys(
        ("judge", "base", "rm", "dpo"), "done"
    )
    results = Results(Store(folders.runs))
    tables = {split: results.load(table).rows for split, table in make_graph(prepared, results).tables.items()}
    train, judge = ({row.prompt for row in tables[split]} for split in ("train", "judge"))
    assert train
    assert judge
    assert not train & judge
    assert len(tables["train"]) + len(tables["judge"]) == 60
