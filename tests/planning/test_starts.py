"""What `start_from` means: the cell, the order, what is shared, what cannot be, and that nothing else has changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from align_bench.errors import SuiteError
from align_bench.models.base import Base
from align_bench.planning.cells import Cell
from align_bench.planning.graph import make_graph
from align_bench.planning.inputs import Prepared
from align_bench.planning.known import NothingKnown
from align_bench.stages.drift import Drift
from align_bench.stages.generate import Generate
from align_bench.stages.models import Frozen, Policy
from align_bench.stages.proxy import Proxy
from align_bench.stages.reference import Reference
from align_bench.stages.select import Select
from align_bench.stages.train import Train
from align_bench.stages.train_online import TrainOnline
from align_bench.stages.validate_policy import ValidatePolicy
from tests.planning.test_graph import OUTSIDE, REGISTRY, by_id, inputs, plan, suite

# What is in the key of a training, and was before methods could start from others.
IDENTITY = {"base", "plugin", "method", "parameters", "learning_rate", "seed", "lora", "train"}


def adapter(cell: Cell) -> Any:
    """What a cell trains."""
    assert cell.adapter is not None
    return cell.adapter


def trained(name: str, **changes: Any) -> Any:
    """The training of a cell of a suite."""
    return adapter(by_id(plan(**changes))[name])


def test_without_a_start_nothing_is_in_a_key_that_was_not_before() -> None:
    cells = by_id(plan(methods=["rm", "sft", "dpo", "kto", {"ppo": {"reward": "rm"}}]))
    for name, cell in cells.items():
        assert set(adapter(cell).identity()) == IDENTITY, name
        assert not adapter(cell).started
    reference = adapter(cells["dpo"]).reference
    assert reference.needs() == (reference.table,)
    assert reference.identity() == reference.frozen.identity()
    drift = cells["dpo"].drift
    assert drift is not None
    assert drift.identity() == {}
    assert drift.needs() == (drift.answers.table, drift.answers, adapter(cells["dpo"]))
    assert cells["dpo"].drift_from_start is None


def test_the_base_by_name_is_no_start() -> None:
    assert trained("dpo", methods=[{"dpo": {"start_from": "base"}}]) == trained("dpo", methods=["dpo"])


def test_a_method_trains_on_and_measures_against_its_start() -> None:
    cells = by_id(plan(methods=["sft", {"dpo": {"start_from": "sft"}}]))
    sft, dpo = adapter(cells["sft"]), adapter(cells["dpo"])
    assert isinstance(dpo, Train)
    assert sft in dpo.needs()
    assert isinstance(dpo.reference, Reference)
    assert dpo.reference.adapter == sft
    (measured,) = cells["dpo"].all(ValidatePolicy)
    assert isinstance(measured.reference, Reference)
    assert measured.reference.adapter == sft
    from_base, from_start = cells["dpo"].all(Drift)
    assert from_base.reference is None
    assert from_start.reference is not None
    assert from_start.reference.adapter == sft
    assert (from_base.label, from_start.label) == ("drift", "drift from start")
    assert cells["dpo"].chain == ("sft", "dpo")
    assert cells["dpo"].remarks == ("starts from sft (sft → dpo)",)
    assert cells["dpo"].all_parameters["start_from"] == "sft"


def test_the_reference_may_be_the_base() -> None:
    methods = ["sft", {"dpo": {"start_from": "sft", "reference_policy": ["start", "base"]}}]
    cells = by_id(plan(methods=[*methods, "dpo"]))
    of_start, of_base = cells["dpo[start_from=sft]"], cells["dpo[start_from=sft,reference_policy=base]"]
    assert adapter(of_start) != adapter(of_base)
    assert isinstance(adapter(of_base), Train)
    assert adapter(of_base).reference == adapter(cells["dpo"]).reference
    (measured,) = of_base.all(ValidatePolicy)
    assert measured.reference == cells["dpo"].all(ValidatePolicy)[0].reference
    assert of_base.remarks == ("starts from sft (sft → dpo); its reference is the base",)


def test_online_methods_are_held_to_the_same_reference() -> None:
    methods = ["rm", "sft", {"ppo": {"reward": "rm", "start_from": "sft", "reference_policy": ["start", "base"]}}]
    cells = by_id(plan(methods=methods))
    of_start, of_base = adapter(cells["ppo"]), adapter(cells["ppo[reference_policy=base]"])
    assert isinstance(of_start, TrainOnline)
    assert isinstance(of_base, TrainOnline)
    assert of_start.reference_adapter == adapter(cells["sft"])
    assert of_base.reference_adapter is None
    assert of_start.address != of_base.address
    assert adapter(cells["sft"]) in of_base.needs()


@pytest.mark.parametrize("method", ["rm", "poe_rm", "robust_rm", "odin_rm", "margin_rm", "trl_rm"])
def test_reward_models_begin_with_a_policys_adapter(method: str) -> None:
    cells = by_id(plan(methods=["sft", {method: {"start_from": "sft"}}]))
    sft, cell = adapter(cells["sft"]), cells[method]
    started = adapter(cell)
    assert started.started == (sft,)
    assert sft in started.needs()
    assert set(started.identity()) - {"foreign"} == IDENTITY, "the start is in the key by what is needed"
    assert started != trained(method, methods=[method])
    assert cell.chain == ("sft", method)
    assert cell.remarks == (f"starts from sft (sft → {method})",)
    assert not cell.all(Drift)
    assert not cell.all(Generate)


def test_what_learns_from_a_reward_model_with_a_start_comes_after_it() -> None:
    """The chains cross: the reward model starts from what another reward model rewards."""
    methods = [
        {"best_of_n": {"reward": "rm", "start_from": "grpo"}},
        {"ppo": {"reward": "rm"}},
        {"rm": {"start_from": "grpo"}},
        {"grpo": {"reward": "poe_rm", "start_from": "sft"}},
        {"poe_rm": {"start_from": "sft"}},
        "sft",
    ]
    graph = plan(methods=methods, seeds=[3, 4])
    assert [cell.id.name for cell in graph.cells] == [*(next(iter(one)) for one in methods[:5]), "sft"] * 2
    cells = by_id(graph)
    for seed in (3, 4):
        rm = cells[f"rm#{seed}"]
        assert cells[f"ppo#{seed}"].reward == cells[f"best_of_n#{seed}"].reward == rm
        assert adapter(cells[f"ppo#{seed}"]).reward == adapter(rm).model
        assert rm.chain == ("sft", "grpo", "rm")
        assert cells[f"best_of_n#{seed}"].chain == ("sft", "grpo", "best_of_n")
        assert cells[f"grpo#{seed}"].reward == cells[f"poe_rm#{seed}"]
        (proxy,) = cells[f"ppo#{seed}"].all(Proxy)
        assert proxy.reward_cell == rm.id


def test_a_reward_is_named_by_its_cell_or_is_the_first_of_its_method() -> None:
    methods = ["sft", {"rm": {"start_from": ["base", "sft"]}}]
    cells = by_id(plan(methods=[*methods, {"ppo": {"reward": ["rm", "rm[start_from=sft]"]}}]))
    first, second = cells["ppo[reward=rm]"], cells["ppo[reward=rm[start_from=sft]]"]
    assert first.reward == cells["rm"]
    assert second.reward == cells["rm[start_from=sft]"]
    assert first.adapter != second.adapter
    assert adapter(first) == trained("ppo", methods=["rm", "ppo"])
    turned = by_id(plan(methods=["sft", {"rm": {"start_from": "sft"}}, "rm", "ppo"]))
    assert turned["ppo"].reward == turned["rm"], "a cell of that very name comes before the method's first"


def test_a_selection_picks_among_answers_of_its_start() -> None:
    best = {"best_of_n": {"reward": "rm", "start_from": ["base", "sft"]}}
    cells = by_id(plan(methods=["rm", "sft", best]))
    of_base, of_sft = cells["best_of_n"], cells["best_of_n[start_from=sft]"]
    sft = adapter(cells["sft"])
    for cell, policy in ((of_base, Policy(sft.frozen)), (of_sft, Policy(sft.frozen, sft))):
        (pick,) = cell.all(Select)
        assert {draw.policy for draw in pick.draws} == {policy}
        assert cell.all(Generate) == pick.draws
        assert not cell.all(Drift), "picks have no log-probability of their own"
    assert of_base.all(Select) == by_id(plan(methods=["rm", "best_of_n"]))["best_of_n"].all(Select)
    (left,), (right,) = of_base.all(Select), of_sft.all(Select)
    assert left != right
    assert left.identity() == right.identity(), "the start is in the key by its draws"
    assert "among 8 of the base, " in of_base.remarks[0]
    assert of_sft.remarks[0] == "starts from sft (sft → best_of_n)"
    assert "among 8 of sft, " in of_sft.remarks[1]


def test_a_whole_model_is_what_reward_models_and_selections_stand_on() -> None:
    given = suite(
        methods=[{"rm": {"start_from": "./whole"}}, {"best_of_n": {"reward": "rm", "start_from": "./whole"}}, "ppo"],
        judge={"method": "rm", "data": "judge.jsonl", "seed": 1},
    )
    found = inputs(given, OUTSIDE)
    whole = Frozen(Base("./whole", Path("whole"), None, "other weights"), found.frozen.precision)
    cells = by_id(
        make_graph(Prepared(given, REGISTRY, replace(found, starts={"./whole": Policy(whole)})), NothingKnown())
    )
    assert adapter(cells["rm"]).frozen == whole
    assert adapter(cells["rm"]).started == ()
    assert cells["rm"].chain == ("whole", "rm")
    assert adapter(cells["ppo"]).frozen == found.frozen
    assert adapter(cells["ppo"]).reward.frozen == whole
    (pick,) = cells["best_of_n"].all(Select)
    assert pick.frozen == whole
    assert {draw.policy for draw in pick.draws} == {Policy(whole)}


def test_what_starts_from_one_shares_its_training_and_its_log_probabilities() -> None:
    graph = plan(methods=["sft", *({name: {"start_from": "sft"}} for name in ("dpo", "kto", "simpo", "ipo"))])
    of_sft = [one for one in graph.stages if isinstance(one, Reference) and one.adapter == adapter(by_id(graph)["sft"])]
    assert sorted((one.kind, one.table.owner) for one in of_sft) == [
        ("mismatched", "train"),
        ("reference", "train"),
        ("reference", "val"),
    ]
    assert sum(one.kind == "adapter" and one.owner == "sft" for one in graph.stages) == 1


def test_chains_of_any_length_in_any_order_and_by_seed() -> None:
    methods = [{"simpo": {"start_from": "kto"}}, {"kto": {"start_from": "dpo"}}, {"dpo": {"start_from": "sft"}}, "sft"]
    graph = plan(methods=methods, seeds=[3, 4])
    assert [str(cell.id) for cell in graph.cells][:4] == ["simpo#3", "kto#3", "dpo#3", "sft#3"]
    cells = by_id(graph)
    for seed in (3, 4):
        assert cells[f"simpo#{seed}"].chain == ("sft", "dpo", "kto", "simpo")
        assert adapter(cells[f"kto#{seed}"]).start.adapter == adapter(cells[f"dpo#{seed}"])
    places = [stage.owner for stage in graph.stages if stage.kind == "adapter" and stage.owner.endswith("#3")]
    assert places == ["sft#3", "dpo#3", "kto#3", "simpo#3"]


def test_a_change_of_the_start_is_in_the_key_of_what_follows() -> None:
    after = [{"dpo": {"start_from": "sft"}}, {"kto": {"start_from": "dpo"}}]
    plain, other = (plan(methods=[{"sft": {"learning_rate": rate}}, *after]) for rate in (1e-4, 2e-4))
    for name in ("dpo", "kto"):
        assert adapter(by_id(plain)[name]) != adapter(by_id(other)[name])


def test_a_point_of_a_grid_is_named_by_its_cell() -> None:
    sft = {"sft": {"learning_rate": [1e-4, 2e-4]}}
    with pytest.raises(SuiteError) as found:
        plan(methods=[sft, {"dpo": {"start_from": "sft"}}])
    assert str(found.value) == (
        "methods: dpo: start_from: sft has 2 points: sft[learning_rate=0.0001], sft[learning_rate=0.0002]; expected "
        "one\n  → name one of them, such as 'sft[learning_rate=0.0001]'"
    )
    cells = by_id(plan(methods=[sft, {"dpo": {"start_from": "sft[learning_rate=0.0002]"}}]))
    assert adapter(cells["dpo"]).start.adapter == adapter(cells["sft[learning_rate=0.0002]"])


def test_a_method_may_start_from_another_point_of_its_own() -> None:
    cells = by_id(plan(methods=["dpo", {"dpo": {"start_from": "dpo"}}]))
    assert adapter(cells["dpo[start_from=dpo]"]).start.adapter == adapter(cells["dpo"])


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (
            [{"dpo": {"start_from": "kto"}}, {"kto": {"start_from": "simpo"}}, {"simpo": {"start_from": "dpo"}}],
            "dpo → simpo → kto → dpo is a cycle",
        ),
        ([{"dpo": {"start_from": "dpo"}}], "dpo → dpo is a cycle"),
        (
            [{"rm": {"start_from": "ppo"}}, {"ppo": {"reward": "rm"}}],
            "rm → ppo → rm is a cycle: each starts from the one before, or has it as its reward",
        ),
        (["rm", {"dpo": {"start_from": "rm"}}], "dpo: start_from: got rm, which trains no policy"),
        (["rm", {"poe_rm": {"start_from": "rm"}}], "poe_rm: start_from: got rm, which trains no policy"),
        (
            ["sft", {"rm": {"start_from": "sft", "reference_policy": "start"}}],
            "rm: reference_policy: got 'start', but rm trains a reward model",
        ),
        (
            ["sft", {"trl_rm": {"start_from": "sft", "reference_policy": "base"}}],
            "trl_rm: reference_policy: got 'base', but trl_rm trains a reward model",
        ),
        (
            ["rm", "sft", {"best_of_n": {"start_from": "sft", "reference_policy": "base"}}],
            "best_of_n: reference_policy: got 'base', but best_of_n picks among answers and trains nothing",
        ),
        (["sft", {"rm": {"start_form": "sft"}}], "rm has no parameter 'start_form'. Did you mean start_from?"),
        (
            ["rm", {"best_of_n": {"reward": "rm"}}, {"dpo": {"start_from": "best_of_n"}}],
            "got best_of_n, which trains no policy",
        ),
        (
            ["sft", {"simpo": {"start_from": "sft", "reference_policy": "base"}}],
            "simpo: reference_policy: got base, but simpo cannot be held to it: reads no reference",
        ),
        (
            ["sft", {"trl_dpo": {"start_from": "sft", "reference_policy": "base"}}],
            "trl_dpo cannot be held to it: its trainer takes its own start as the reference",
        ),
        ([{"dpo": {"reference_policy": "start"}}], "the method starts from the base, which is its reference"),
        (["sft", {"dpo": {"start_from": "sft", "reference_policy": "sft"}}], "got 'sft', expected start or base"),
        (["sft", {"dpo": {"start_from": 3}}], "dpo: start_from: got 3, expected base, the name of a cell"),
        (["sft", {"sft": {"start_from": "sft", "learning_rat": 1}}], "Did you mean learning_rate?"),
    ],
)
def test_what_cannot_be_is_said(methods: list[Any], message: str) -> None:
    with pytest.raises(SuiteError) as found:
        plan(methods=methods)
    assert message in found.value.message
    assert found.value.fix


def test_a_judge_starts_from_the_base() -> None:
    judge = {"method": "rm", "data": "judge.jsonl", "parameters": {"start_from": "sft"}}
    with pytest.raises(
        SuiteError, match=r"judge\.parameters: start_from: got 'sft', but judges start from the base: a"
    ):
        plan(methods=["sft"], judge=judge)


def test_an_online_method_has_one_model_in_memory() -> None:
    """A start that is a whole model is its own reference; the base would be another model."""
    given = suite(
        methods=["rm", {"sft": {"start_from": "./whole"}}, {"ppo": {"reward": "rm", "start_from": "sft"}}],
        judge={"method": "rm", "data": "judge.jsonl", "seed": 1},
    )
    found = inputs(given, OUTSIDE)
    whole = Frozen(Base("./whole", Path("whole"), None, "other weights"), found.frozen.precision)
    prepared = Prepared(given, REGISTRY, replace(found, starts={"./whole": Policy(whole)}))
    ppo = by_id(make_graph(prepared, NothingKnown()))["ppo"]
    assert adapter(ppo).frozen == whole
    assert ppo.chain == ("whole", "sft", "ppo")
    assert ppo.drift is not None
    assert ppo.drift.reference == Policy(found.frozen), "its adapter off is not the base"
    held = given.model_copy(
        update={
            "methods": suite(
                methods=[
                    "rm",
                    {"sft": {"start_from": "./whole"}},
                    {"ppo": {"reward": "rm", "start_from": "sft", "reference_policy": "base"}},
                ]
            ).methods
        }
    )
    with pytest.raises(SuiteError, match=r"the start is a whole model, ./whole, and an online method holds one model"):
        make_graph(replace(prepared, suite=held), NothingKnown())


def test_a_start_is_not_tuned() -> None:
    with pytest.raises(SuiteError, match=r"tune\.methods: dpo: start_from: what a method starts from is not tuned"):
        plan(methods=["sft", "dpo"], tune={"methods": {"dpo": {"start_from": ["base", "sft"]}}})


def test_trials_start_from_what_is_trained_on_their_rows() -> None:
    graph = plan(methods=["sft", {"dpo": {"start_from": "sft"}}], tune={"trials": 2, "methods": {"dpo": None}})
    trials = [cell for cell in graph.trials if cell.id.name == "dpo"]
    assert len(trials) == 2
    sft = adapter(by_id(graph)["sft"])
    for cell in trials:
        start = adapter(cell).start.adapter
        assert start.table == adapter(cell).table
        assert start != sft
    assert by_id(graph)["dpo"].waiting is not None


def test_trials_of_reward_models_and_of_what_learns_from_them_have_starts_of_their_rows() -> None:
    methods = ["sft", {"rm": {"start_from": "sft"}}, {"ppo": {"reward": "rm"}}]
    tuned = {"both": {"rm": None, "ppo": None}, "the policy": {"ppo": None}}
    for which, searched in tuned.items():
        graph = plan(methods=methods, tune={"trials": 2, "methods": searched})
        trials = {name: [cell for cell in graph.trials if cell.id.name == name] for name in ("rm", "ppo")}
        assert [len(found) for found in trials.values()] == [2 if which == "both" else 0, 2]
        for cell in (*trials["rm"], *(trial.reward for trial in trials["ppo"])):
            assert cell is not None
            assert adapter(cell).start.adapter.table == adapter(cell).table == graph.held_out["train"]


def test_a_tuned_reward_is_that_of_each_trial() -> None:
    methods = ["rm", "poe_rm", {"ppo": {"reward": "rm"}}]
    graph = plan(methods=methods, tune={"trials": 2, "methods": {"ppo": {"reward": ["rm", "poe_rm"]}}})
    assert [cell.reward.id.name for cell in graph.trials if cell.reward] == ["rm", "poe_rm"]


def test_what_waits_for_its_start_to_be_tuned_says_so() -> None:
    graph = plan(methods=["sft", {"dpo": {"start_from": "sft"}}], tune={"trials": 2, "methods": {"sft": None}})
    cells = by_id(graph)
    assert cells["sft"].waiting is not None
    assert cells["dpo"].waiting == cells["sft"].waiting
