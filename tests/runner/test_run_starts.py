"""Methods that start from others: what they begin with, what they are held to, what is shared, resumed and shown."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.text import Text
from safetensors.torch import load_file, save_file

from align_bench.cli.plan_view import plan_tables
from align_bench.errors import ModelError, SuiteError
from align_bench.export.choose import choose
from align_bench.export.export import Wanted, export
from align_bench.models.adapters import CONFIG, WEIGHTS, read_adapter
from align_bench.models.base import find_base
from align_bench.models.exported import CARD
from align_bench.models.merge import write_whole
from align_bench.planning.cells import Cell
from align_bench.planning.graph import Graph, make_graph
from align_bench.planning.inputs import Prepared, prepare
from align_bench.plugins.registry import load_registry
from align_bench.records import CellId, no_update
from align_bench.report.export import read_generations, read_training
from align_bench.report.schema import Report
from align_bench.report.tables.drift import against_start
from align_bench.runner.results import Results
from align_bench.runner.run import Folders
from align_bench.store.store import Store
from align_bench.suite.load import load_suite
from tests.runner.test_run import Recorder, by_name, execute

START = {"start_from": "sft"}
# Rates at which three steps already move the weights.
METHODS: list[Any] = [
    {"sft": {"learning_rate": 0.02}},
    {"dpo": {**START, "learning_rate": 0.01}},
    {"kto": {**START, "learning_rate": 0.01}},
    {"ipo": {**START, "reference_policy": "base"}},
    {"grpo": {**START, "reward": "gold", "samples": 4, "max_new_tokens": 4}},
    {"simpo": {"start_from": "dpo"}},
    {"trl_dpo": START},
    {"tr_dpo": {**START, "learning_rate": 0.01, "sync_steps": 2}},
]
GOLD = {"method": "gold", "allow_judge_as_reward": True}  # for grpo
CHANGES: dict[str, Any] = {"judge": GOLD, "audit": {"pairs": 0}, "methods": METHODS}


class Whole:
    """A finished run, with what is stored of it."""

    def __init__(self, path: Path, folders: Folders, report: Report) -> None:
        self.path, self.folders, self.report = path, folders, report
        self.results = Results(Store(folders.runs))
        self.prepared = prepare(load_suite(str(path)), load_registry())
        self.graph: Graph = make_graph(self.prepared, self.results)

    def cell(self, name: str) -> Cell:
        return next(cell for cell in self.graph.cells if str(cell.id) == name)

    def adapter(self, name: str) -> Path:
        trained = self.cell(name).adapter
        assert trained is not None
        return self.results.artefact(trained).folder

    def first_step(self, name: str) -> dict[str, float | None]:
        step = next(row for row in read_training(self.folders.reports / "small") if (row.cell, row.step) == (name, 1))
        return {"loss": step.loss, **step.measures}


@pytest.fixture(scope="module")
def whole(small_suite: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    root = tmp_path_factory.mktemp("starts")
    path = root / "small.yaml"
    path.write_text(yaml.safe_dump({**small_suite, **CHANGES}), encoding="utf-8")
    folders = Folders(root / "runs", root / "reports")
    return Whole(path, folders, execute(path, folders))


def test_every_cell_is_done_and_says_its_chain(whole: Whole) -> None:
    found = by_name(whole.report)
    assert {one.status for one in found.values()} == {"done"}
    assert found["simpo"].chain == ["sft", "dpo", "simpo"]
    assert (found["simpo"].start, found["sft"].start, found["sft"].chain) == (CellId("dpo"), None, [])
    assert found["ipo"].remarks[0] == "starts from sft (sft → ipo); its reference is the base"
    assert [row.label for row in whole.report.leaderboard if row.kind == "policy"].count("dpo") == 1


@pytest.mark.parametrize(
    ("name", "loss"), [("dpo", math.log(2)), ("trl_dpo", math.log(2)), ("tr_dpo", math.log(2)), ("kto", 0.5)]
)
def test_at_step_0_margins_against_the_start_are_0(whole: Whole, name: str, loss: float) -> None:
    step = whole.first_step(name)
    assert step["loss"] == pytest.approx(loss, abs=1e-5)
    assert step.get("margin", step.get("reward")) == pytest.approx(0, abs=1e-4)


def test_a_reference_that_moves_begins_as_the_start_and_becomes_the_policy(whole: Whole) -> None:
    losses = {
        name: [row.loss for row in read_training(whole.folders.reports / "small") if row.cell == name]
        for name in ("dpo", "tr_dpo")
    }
    assert losses["tr_dpo"][:2] == losses["dpo"][:2]
    assert losses["tr_dpo"][2] == pytest.approx(math.log(2), rel=1e-6)
    assert losses["dpo"][2] != pytest.approx(math.log(2), rel=1e-6)
    assert "becomes the policy every 2 optimizer steps" in by_name(whole.report)["tr_dpo"].remarks[1]


def test_at_step_0_margins_against_the_base_are_not(whole: Whole) -> None:
    assert abs(whole.first_step("ipo")["margin"] or 0.0) > 1e-2


def test_at_step_0_online_methods_have_not_left_their_start(whole: Whole) -> None:
    assert whole.first_step("grpo")["kl"] == pytest.approx(0, abs=1e-4)


def test_what_is_started_from_stays_as_it_is_and_is_trained_once(whole: Whole) -> None:
    adapters = [stage for stage in whole.graph.stages if stage.kind == "adapter"]
    assert len(adapters) == len(METHODS)
    assert whole.results.sound(whole.cell("sft").adapter)  # type: ignore[arg-type]  # it has one
    start, own = load_file(whole.adapter("sft") / WEIGHTS), load_file(whole.adapter("dpo") / WEIGHTS)
    assert start.keys() == own.keys()
    assert any(not torch.equal(start[name], own[name]) for name in start)


def test_drift_is_measured_from_the_start_and_from_the_base(whole: Whole) -> None:
    answers = {
        name: [one for one in read_generations(whole.folders.reports / "small") if one.cell == name]
        for name in ("sft", "dpo", "simpo")
    }
    assert all(one.start_logp is None and one.start_kl is None for one in answers["sft"])
    for name in ("dpo", "simpo"):
        for one in answers[name]:
            assert one.start_kl is not None
            assert one.start_kl >= 0
            assert one.start_logp != one.ref_logp
    metrics = by_name(whole.report)["simpo"].metrics  # which has a rate of 1e-5
    assert metrics.kl_from_start.value is not None
    assert metrics.kl.value is not None
    assert metrics.kl_from_start.value < 0.1 * metrics.kl.value


def test_the_report_shows_each_against_its_start(whole: Whole) -> None:
    table = against_start(whole.report)
    rows = {str(row[0]): [str(value) for value in row] for row in table.rows}
    assert list(rows) == ["dpo", "kto", "ipo", "grpo", "simpo", "trl_dpo", "tr_dpo"]
    assert rows["simpo"][1] == "sft → dpo → simpo"
    assert "p " in rows["dpo"][-1], "the difference is tested"
    text = (whole.folders.reports / "small" / "report.md").read_text(encoding="utf-8")
    assert table.title in text
    assert "sft → dpo → simpo" in text


def test_plans_and_cards_say_the_chain_and_an_export_needs_no_other(whole: Whole, tmp_path: Path) -> None:
    lines = [part.plain for part in plan_tables(whole.prepared, whole.folders.runs) if isinstance(part, Text)]
    said = "each starts from the one before: sft → dpo; sft → kto; sft → ipo; sft → grpo; sft → dpo → simpo; "
    said += "sft → trl_dpo; sft → tr_dpo"
    assert said in lines
    chosen = choose(whole.prepared, "simpo", runs=whole.folders.runs, reports=whole.folders.reports)
    wanted = Wanted(tmp_path / "out", merge=False, gguf=False, licence=None, command="align-bench export")
    (proof,) = export(chosen, wanted, no_update)
    assert proof.largest < 1e-3, "with plain peft, on the base alone"
    card = (tmp_path / "out" / CARD).read_text(encoding="utf-8")
    assert "| trained after | sft → dpo → simpo |" in card
    assert read_adapter(tmp_path / "out").base == whole.prepared.inputs.frozen.base.place


KILLED: dict[str, Any] = {
    **CHANGES,
    "methods": METHODS[:2],
    "train": {"batch_size": 8, "max_length": 128, "checkpoint_minutes": 1e-9},
}


def test_kill_9_and_run_again_gives_the_same_numbers(
    whole: Whole, write_suite: Callable[..., Path], tmp_path: Path, killed_at: Callable[..., None]
) -> None:
    path = write_suite(**KILLED)
    killed_at(path, tmp_path, "dpo: train")
    progress = Recorder()
    report = execute(path, Folders(tmp_path / "runs", tmp_path / "reports"), progress)
    assert "dpo: train" in progress.stages
    assert "sft: train" not in progress.stages, "what was done is not done again"
    found, straight = by_name(report), by_name(whole.report)
    for name in ("sft", "dpo"):
        left, right = (one[name].model_copy(update={"cost": None, "adapter": None}) for one in (found, straight))
        assert left == right


# Starts that were trained elsewhere.


def started(write_suite: Callable[..., Path], start: object, **changes: Any) -> Any:
    """A suite whose only method starts from something, prepared."""
    methods = [{"dpo": {"start_from": str(start)}}]
    return prepare(load_suite(str(write_suite(judge="gold", methods=methods, **changes))), load_registry())


def test_an_adapters_folder_and_a_merged_model_are_starts(
    whole: Whole, write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    """The adapter of sft, taken out of the store, or added to its base, is as good a start as the cell."""
    given, merged, base = tmp_path / "mine", tmp_path / "merged", whole.prepared.inputs.frozen.base
    shutil.copytree(whole.adapter("sft"), given)
    before = (given / WEIGHTS).read_bytes()
    write_whole(replace(find_base(str(given), role="judge"), below=base), merged)
    methods = [
        {"dpo": {"start_from": str(given), "learning_rate": 0.01}},
        {"ipo": {"start_from": str(merged), "reference_policy": ["start", "base"]}},
    ]
    folders = Folders(tmp_path / "runs", tmp_path / "reports")
    path = write_suite(judge="gold", audit={"pairs": 0}, methods=methods)
    found = by_name(execute(path, folders))
    assert {one.status for one in found.values()} == {"done"}
    assert (given / WEIGHTS).read_bytes() == before
    own, known = found["dpo"], by_name(whole.report)["dpo"]
    assert (own.chain, own.start) == (["mine", "dpo"], None)
    assert own.metrics.kl_from_start == known.metrics.kl_from_start
    assert own.metrics.margin == known.metrics.margin
    margins = {row.cell: row.measures["margin"] for row in read_training(folders.reports / "small") if row.step == 1}
    assert margins["ipo"] == pytest.approx(0, abs=1e-4)
    assert margins["ipo[reference_policy=base]"] == pytest.approx(whole.first_step("ipo")["margin"], rel=1e-3)
    metrics, sft = found["ipo"].metrics, by_name(whole.report)["sft"].metrics
    assert metrics.kl.value == pytest.approx(sft.kl.value, rel=0.2), "at a rate of 5e-5 it is nearly sft"
    assert metrics.kl_from_start.value is not None
    assert metrics.kl_from_start.value < 0.1
    _exported_from_a_model(write_suite, prepare(load_suite(str(path)), load_registry()), folders, merged)


def _exported_from_a_model(
    write_suite: Callable[..., Path], prepared: Prepared, folders: Folders, merged: Path
) -> None:
    """What was trained on a given model says so in its card, and can be started from again, as an adapter or whole."""
    chosen = choose(prepared, "ipo", runs=folders.runs, reports=folders.reports)
    for out, whole in ((merged.parent / "adapter", False), (merged.parent / "whole", True)):
        export(chosen, Wanted(out, merge=whole, gguf=False, licence=None, command="align-bench export"), no_update)
        card, digest = (out / CARD).read_text(encoding="utf-8"), find_base(str(merged)).digest
        assert f"| base | merged (files: `{digest}`) |" in card
        assert f"| base of the suite | {prepared.inputs.frozen.base.name}" in card.replace("\\", "")
        (start,) = started(write_suite, out).inputs.starts.values()
        assert start.frozen.base.folder == (out if whole else merged)
        assert start.frozen.base.digest == (find_base(str(out)).digest if whole else digest)
        assert (start.adapter is None) == whole
        with pytest.raises(SuiteError):
            started(write_suite, out, base="embedded/tiny")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": 8}, "got r = 8 in its adapter_config.json, expected 4, as the suite has it"),
        ({"lora_alpha": 16}, "got lora_alpha = 16 in its adapter_config.json, expected 8"),
        ({"use_dora": True}, "got use_dora = True in its adapter_config.json"),
        ({"peft_type": "IA3"}, "got peft_type = IA3 in its adapter_config.json, expected LORA"),
    ],
)
def test_an_adapter_of_another_shape_is_refused_when_it_is_planned(
    whole: Whole, write_suite: Callable[..., Path], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    given = tmp_path / "mine"
    shutil.copytree(whole.adapter("sft"), given)
    config = json.loads((given / CONFIG).read_text(encoding="utf-8"))
    (given / CONFIG).write_text(json.dumps(config | change), encoding="utf-8")
    with pytest.raises(SuiteError) as found:
        started(write_suite, given)
    assert message in found.value.message
    assert found.value.fix


def test_other_modules_than_the_adapters_are_refused(
    whole: Whole, write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(SuiteError, match=r"got target_modules = .* expected .*'q_proj'") as found:
        started(write_suite, whole.adapter("sft"), lora={"r": 4, "alpha": 8, "target_modules": ["q_proj"]})
    assert "set lora.target_modules: [down_proj, gate_proj, k_proj" in str(found.value)


def test_an_adapter_of_fewer_layers_than_all_is_refused(
    whole: Whole, write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    given = tmp_path / "mine"
    shutil.copytree(whole.adapter("sft"), given)
    weights = {name: value for name, value in load_file(given / WEIGHTS).items() if "_proj" in name and "q_" in name}
    save_file(weights, given / WEIGHTS)
    with pytest.raises(SuiteError, match=r"has no factors for down_proj, .*, expected all linear layers") as found:
        started(write_suite, given)
    assert found.value.fix == "set lora.target_modules: [q_proj]"


def test_an_adapter_on_another_base_is_refused(whole: Whole, write_suite: Callable[..., Path]) -> None:
    with pytest.raises(SuiteError, match=r"the adapter stands on .*, expected the suite's base embedded/tiny"):
        started(write_suite, whole.adapter("sft"), base="embedded/tiny")


def test_a_model_of_another_shape_or_tokenizer_is_refused(
    write_suite: Callable[..., Path], base_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(SuiteError, match=r"got hidden_size = 32 in its config\.json, expected"):
        started(write_suite, base_folder, base="embedded/tiny")
    other = tmp_path / "other"
    shutil.copytree(base_folder, other)
    text = (other / "tokenizer.json").read_text(encoding="utf-8")
    (other / "tokenizer.json").write_text(text.replace('"<|user|>"', '"<|asks|>"'), encoding="utf-8")
    with pytest.raises(SuiteError, match="its tokenizer is not that of the base"):
        started(write_suite, other)
    (other / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"it has no tokenizer\.json"):
        started(write_suite, other)


def test_what_is_neither_a_cell_nor_a_folder_is_refused(write_suite: Callable[..., Path]) -> None:
    with pytest.raises(SuiteError, match=r"got 'dop', which is no cell of this suite and no folder\. Did you mean dpo"):
        started(write_suite, "dop")
    for gone in ("./nowhere", "/gone/adapter"):
        with pytest.raises(
            SuiteError, match=f"methods: start_from: the folder '{gone}' does not exist, neither"
        ) as told:
            started(write_suite, gone)
        assert "hub" not in str(told.value)
        assert "one that was moved has another path" in str(told.value)


def test_a_folder_that_is_gone_and_no_model_of_the_hub_is_told_as_a_folder(
    write_suite: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(name: str, role: str, *, weights: bool) -> Any:
        raise ModelError(f"{role} {name!r} cannot be fetched")

    monkeypatch.setattr("align_bench.models.base._from_hub", offline)
    with pytest.raises(
        SuiteError, match=r"the folder 'adapters/gone' does not exist, .*; as a model of the hub, .* fetched"
    ):
        started(write_suite, "adapters/gone")


def test_a_cell_is_named_after_a_folder_as_the_suite_has_it(
    whole: Whole, write_suite: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {**CHANGES, "methods": ["sft", {"dpo": {"start_from": ["sft", "kept/mine"]}}]}
    path = write_suite(**changes)
    shutil.copytree(whole.adapter("sft"), path.parent / "kept" / "mine")
    found = []
    for folder in (path.parent, tmp_path / "elsewhere"):
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        cells = make_graph(prepare(load_suite(str(path)), load_registry()), whole.results).cells
        found.append([(str(cell.id), cell.chain, cell.adapter and cell.adapter.address) for cell in cells])
    assert found[0] == found[1]
    assert [name for name, *_ in found[0]] == ["sft", "dpo[start_from=sft]", "dpo[start_from=kept/mine]"]
