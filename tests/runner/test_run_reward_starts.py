"""Reward models and selections that start from a policy: what they begin with, what they pick among, what is shown."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from align_bench.cli.plan_view import plan_tables
from align_bench.errors import SuiteError
from align_bench.export.choose import choose
from align_bench.export.export import Wanted, export
from align_bench.models.adapters import WEIGHTS, read_adapter
from align_bench.models.base import find_base
from align_bench.models.exported import CARD
from align_bench.models.generate import generate
from align_bench.models.load import draw_head, load_adapter, load_policy, load_scorer
from align_bench.models.merge import write_whole
from align_bench.planning.inputs import prepare
from align_bench.plugins.registry import load_registry
from align_bench.records import Conversation, Preference, no_update
from align_bench.report.export import read_generations, read_scores
from align_bench.report.schema import Report
from align_bench.report.tables.drift import against_start
from align_bench.runner.run import Folders
from align_bench.runner.stored_judge import find_run, stored_scorer
from align_bench.stages.answers import first_prompts
from align_bench.stages.select import Select
from align_bench.store.store import Store
from align_bench.suite.load import load_suite
from tests.runner.test_run import Recorder, by_name, execute
from tests.runner.test_run_starts import Whole

NEXT_TO_NONE = 1e-30  # a rate at which no weight moves
START = {"start_from": "sft"}
AT_START = {**START, "learning_rate": NEXT_TO_NONE}
STARTED = "rm[start_from=sft,learning_rate=0.01]"
METHODS: list[Any] = [
    {"best_of_n": {**START, "reward": STARTED, "n": 2}},
    {"ppo": {"reward": STARTED, "samples": 2, "max_new_tokens": 4}},
    {"rm": {"start_from": ["base", "sft"], "learning_rate": 0.01}},
    {"rm": AT_START},
    {"poe_rm": AT_START},
    {"odin_rm": AT_START},
    {"trl_rm": AT_START},
    {"sft": {"learning_rate": 0.02}},
]
GENERATE = {"prompts": 6, "max_new_tokens": 5, "temperature": 1.0}
CHANGES: dict[str, Any] = {
    "judge": {"method": "gold"},
    "audit": {"pairs": 0},
    "generate": GENERATE,
    "methods": METHODS,
}


@pytest.fixture(scope="module")
def whole(small_suite: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    root = tmp_path_factory.mktemp("starts")
    path = root / "small.yaml"
    path.write_text(yaml.safe_dump({**small_suite, **CHANGES}), encoding="utf-8")
    folders = Folders(root / "runs", root / "reports")
    return Whole(path, folders, execute(path, folders))


def scores(report: Folders, cell: str) -> list[float | None]:
    """Of the chosen answers of validation pairs."""
    return [row.chosen_reward for row in read_scores(report.reports / "small") if row.cell == cell]


def test_every_cell_is_done_and_says_its_chain(whole: Whole) -> None:
    found = by_name(whole.report)
    assert {one.status for one in found.values()} == {"done"}
    assert (found[STARTED].start, found[STARTED].chain) == (whole.cell("sft").id, ["sft", "rm[learning_rate=0.01]"])
    assert found["best_of_n"].chain == ["sft", "best_of_n"]
    assert found["best_of_n"].remarks[0] == "starts from sft (sft → best_of_n)"
    assert f"picks each answer by {STARTED} among 2 of sft, " in found["best_of_n"].remarks[1]
    text = (whole.folders.reports / "small" / "report.md").read_text(encoding="utf-8")
    assert "poe_rm: starts from sft (sft → poe_rm)." in text


@pytest.mark.parametrize("name", ["rm[start_from=sft,learning_rate=1e-30]", "poe_rm", "odin_rm", "trl_rm"])
def test_at_step_0_a_reward_model_has_the_factors_of_its_start_and_a_fresh_head(whole: Whole, name: str) -> None:
    start, own = load_file(whole.adapter("sft") / WEIGHTS), load_file(whole.adapter(name) / WEIGHTS)
    factors = {key: weight for key, weight in own.items() if ".lora_" in key}
    assert factors.keys() == start.keys()
    assert all(torch.equal(factors[key], start[key]) for key in start)
    assert any(bool(weight.any()) for key, weight in start.items() if ".lora_B." in key), "sft has learned something"
    frozen = whole.prepared.inputs.frozen
    drawn = draw_head(load_scorer(frozen.base, frozen.precision), seed=0).score.weight
    heads = [weight for key, weight in own.items() if key.endswith(".score.weight")]
    assert any(torch.equal(head, drawn) for head in heads)


def test_what_it_learns_from_there_is_another_reward_model(whole: Whole) -> None:
    of_base = "rm[learning_rate=0.01]"
    base, start, own = (load_file(whole.adapter(name) / WEIGHTS) for name in (of_base, "sft", STARTED))
    assert any(not torch.equal(own[key], start[key]) for key in start), "it is trained on"
    assert any(not torch.equal(own[key], base[key]) for key in base)
    assert scores(whole.folders, of_base) != scores(whole.folders, STARTED)


def test_what_is_started_from_stays_as_it_is_and_is_trained_once(whole: Whole) -> None:
    trained = [stage.owner for stage in whole.graph.stages if stage.kind == "adapter"]
    assert trained.count("sft") == 1
    assert len(trained) == 8
    assert whole.results.sound(whole.cell("sft").adapter)  # type: ignore[arg-type]  # it has one


def test_what_a_policy_learns_from_and_a_selection_picks_by_is_that_reward_model(whole: Whole) -> None:
    for name in ("ppo", "best_of_n"):
        assert whole.cell(name).reward == whole.cell(STARTED)
        (proxy,) = by_name(whole.report)[name].metrics.proxies
        assert proxy.reward == STARTED
        assert proxy.mean.value is not None


def test_candidates_are_what_the_start_writes_with_these_seeds(whole: Whole) -> None:
    (pick,) = whole.cell("best_of_n").all(Select)
    frozen, prepared = whole.prepared.inputs.frozen, whole.prepared
    policy = load_adapter(load_policy(frozen.base, frozen.precision), whole.adapter("sft"))
    rows = first_prompts(whole.results.load(whole.graph.tables["val"]), GENERATE["prompts"])  # type: ignore[arg-type]
    for number, drawn in enumerate(pick.draws):
        seed = 1_000_000 * (number + 1)
        written = generate(policy, frozen.tokenizer(), [row.prompt for row in rows], prepared.suite.generate, seed=seed)
        assert [line["ids"] for line in whole.results.load(drawn)] == [list(one.ids) for (one,) in written]
    picked = whole.results.load(pick)
    assert all(
        line["ids"] == whole.results.load(pick.draws[line["draw"]])[place]["ids"] for place, line in enumerate(picked)
    )


def test_a_selection_is_shown_against_its_start_and_reward_models_are_not(whole: Whole) -> None:
    rows = {str(row[0]): [str(value) for value in row] for row in against_start(whole.report).rows}
    assert list(rows) == ["best_of_n"]
    assert rows["best_of_n"][1] == "sft → best_of_n"
    metrics = by_name(whole.report)["best_of_n"].metrics
    assert metrics.kl.value is None
    assert metrics.kl_from_start.value is None
    answers = [one for one in read_generations(whole.folders.reports / "small") if one.cell == "best_of_n"]
    assert len(answers) == GENERATE["prompts"]
    assert all(one.logp is None and one.start_logp is None for one in answers)


def test_plans_and_cards_say_the_chain_and_an_export_needs_no_other(whole: Whole, tmp_path: Path) -> None:
    from rich.text import Text

    lines = [part.plain for part in plan_tables(whole.prepared, whole.folders.runs) if isinstance(part, Text)]
    (said,) = [line for line in lines if line.startswith("each starts from the one before: ")]
    assert "sft → best_of_n; " in said
    assert "sft → poe_rm; " in said
    chosen = choose(whole.prepared, STARTED, runs=whole.folders.runs, reports=whole.folders.reports)
    wanted = Wanted(tmp_path / "out", merge=False, gguf=False, licence=None, command="align-bench export")
    (proof,) = export(chosen, wanted, no_update)
    assert proof.largest < 1e-3, "with plain peft, on the base alone"
    card = (tmp_path / "out" / CARD).read_text(encoding="utf-8")
    assert "| trained after | sft → rm" in card
    assert "| reference |" not in card
    assert read_adapter(tmp_path / "out").base == whole.prepared.inputs.frozen.base.place
    with pytest.raises(SuiteError, match="best_of_n picks among answers of sft"):
        choose(whole.prepared, "best_of_n", runs=whole.folders.runs, reports=whole.folders.reports)


def test_kill_9_and_run_again_gives_the_same_numbers(
    write_suite: Callable[..., Path], tmp_path: Path, killed_at: Callable[..., None]
) -> None:
    """A checkpoint takes the place of what it began with."""
    methods = [{"sft": {"learning_rate": 0.02}}, {"rm": {**START, "learning_rate": 0.01}}]
    train = {"batch_size": 8, "max_length": 128, "checkpoint_minutes": 1e-9}
    path = write_suite(**{**CHANGES, "methods": methods, "train": train})
    killed_at(path, tmp_path, "rm: train")
    progress = Recorder()
    found = by_name(execute(path, Folders(tmp_path / "runs", tmp_path / "reports"), progress))
    assert "rm: train" in progress.stages
    assert "sft: train" not in progress.stages, "what was done is not done again"
    straight = by_name(execute(path, Folders(tmp_path / "other", tmp_path / "reports2")))
    for name in ("sft", "rm"):
        left, right = (one[name].model_copy(update={"cost": None}) for one in (found, straight))
        assert left == right


# Starts that were trained elsewhere.


@pytest.fixture(scope="module")
def elsewhere(whole: Whole, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The adapter of sft, taken out of the store, and the same added to its base."""
    root = tmp_path_factory.mktemp("elsewhere")
    given, merged, base = root / "mine", root / "merged", whole.prepared.inputs.frozen.base
    shutil.copytree(whole.adapter("sft"), given)
    write_whole(replace(find_base(str(given), role="judge"), below=base), merged)
    return given, merged


def test_an_adapters_folder_and_a_merged_model_are_starts(
    whole: Whole, elsewhere: tuple[Path, Path], write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    given, merged = elsewhere
    methods: list[Any] = [
        {"rm": {"start_from": str(given), "learning_rate": 0.01}},
        {"poe_rm": {"start_from": str(merged), "learning_rate": NEXT_TO_NONE}},
        {"best_of_n": {"start_from": str(given), "reward": "poe_rm", "n": 2}},
        {"grpo": {"reward": "poe_rm", "samples": 2, "max_new_tokens": 4}},
    ]
    folders = Folders(tmp_path / "runs", tmp_path / "reports")
    path = write_suite(**{**CHANGES, "methods": methods})
    report: Report = execute(path, folders)
    found = by_name(report)
    assert {one.status for one in found.values()} == {"done"}
    assert (found["rm"].chain, found["rm"].start) == (["mine", "rm"], None)
    assert scores(folders, "rm") == scores(whole.folders, STARTED), "as good a start as the cell"
    assert found["poe_rm"].chain == ["merged", "poe_rm"]
    known = pytest.approx(scores(whole.folders, "poe_rm"), abs=1e-4)
    assert scores(folders, "poe_rm") == known, "no weight moves: the same function, with the same head"
    other = Whole(path, folders, report)
    drawn = [[run.results.load(draw) for draw in run.cell("best_of_n").all(Select)[0].draws] for run in (other, whole)]
    assert drawn[0] == drawn[1]
    _scores_again(other.prepared, folders)
    chosen = choose(other.prepared, "poe_rm", runs=folders.runs, reports=folders.reports)
    for out, whole_model in ((tmp_path / "adapter", False), (tmp_path / "whole", True)):
        wanted = Wanted(out, merge=whole_model, gguf=False, licence=None, command="align-bench export")
        (proof,) = export(chosen, wanted, no_update)
        assert proof.largest < 1e-3
        assert "| base of the suite |" in (out / CARD).read_text(encoding="utf-8")
        again = write_suite(**{**CHANGES, "methods": [{"rm": {"start_from": str(out)}}]})
        with pytest.raises(SuiteError, match="reward model, expected a policy"):
            prepare(load_suite(str(again)), load_registry())
    below = find_base(str(tmp_path / "adapter"), role="judge").below
    assert below is not None
    assert below.digest == find_base(str(merged)).digest


def _scores_again(prepared: Any, folders: Folders) -> None:
    """`align-bench score` loads each reward model on what it was trained on."""
    store = Store(folders.runs)
    found = find_run("small", store.folder)
    assert found is not None
    texts: list[Preference] = list(prepared.inputs.rows["val"].read().rows)
    answers = [Conversation(one.prompt, one.chosen) for one in texts if one.chosen is not None]
    for name in ("rm", "poe_rm"):
        again, _ = stored_scorer(found[0], name)(answers, max_tokens=4096)
        assert again == pytest.approx(scores(folders, name), abs=1e-4)
