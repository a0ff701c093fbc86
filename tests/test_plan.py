"""The plan: which cells there are, and which artefacts change with what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from align_bench.api import Job, recipe
from align_bench.errors import PluginError, SuiteError
from align_bench.plan import Address, Cell, Inputs, Plan, Tuning, make_plan, plan_trials
from align_bench.registry import Broken, Plugin, Registry, load_registry
from align_bench.suite.models import Suite

INPUTS = Inputs(
    train="train rows",
    val="val rows",
    judge=("judge rows",),
    base="weights",
    precision="fp32/float32/cpu",
    versions={"torch": "2", "transformers": "5", "peft": "0"},
)
REGISTRY = load_registry()
PARTS = ("adapter", "reference", "mismatched", "val", "generations", "judged", "drift", "audit")

Part = tuple[str, str]


def suite(**changes: Any) -> Suite:
    """A suite of every data kind, with some keys replaced."""
    raw = {
        "name": "planned",
        "base": "some/base",
        "data": {"train": "train.jsonl", "val": "val.jsonl"},
        "judge": {"method": "rm", "data": "judge.jsonl"},
        "methods": ["rm", "dpo", "kto", "simpo"],
    }
    return Suite.model_validate(raw | changes)


def plan(inputs: Inputs = INPUTS, registry: Registry = REGISTRY, **changes: Any) -> Plan:
    """The plan of `suite(**changes)`."""
    return make_plan(suite(**changes), registry, inputs)


def names(**changes: Any) -> list[str]:
    """The cells' ids, in their order."""
    return [cell.id for cell in plan(**changes).cells]


def every_cell(made: Plan) -> list[Cell]:
    """The base, the judge and all methods' cells."""
    return [made.base, *([made.judge] if made.judge else []), *made.cells]


def addresses(made: Plan) -> dict[Part, Address | None]:
    """(cell, part) → address, and ("tokens", split) → address."""
    found: dict[Part, Address | None] = {("tokens", split): address for split, address in made.tokens.items()}
    return found | {(cell.id, part): part_of(cell, part) for cell in every_cell(made) for part in PARTS}


def part_of(cell: Cell, part: str) -> Address | None:
    """An artefact of a cell; of the judges' scores that of the only judge."""
    return cell.judged.get("judge") if part == "judged" else getattr(cell, part)


def changed(before: Plan, after: Plan) -> set[Part]:
    """What has another address in the second plan; both must have the same cells."""
    old, new = addresses(before), addresses(after)
    assert set(old) == set(new)
    return {part for part in old if old[part] != new[part]}


def parts(*cells: str, of: tuple[str, ...] = PARTS, made: Plan | None = None) -> set[Part]:
    """The existing parts of some cells (`*` for all)."""
    made = made or plan()
    ids = [cell.id for cell in every_cell(made)] if cells == ("*",) else cells
    found = addresses(made)
    return {(cell, part) for cell in ids for part in of if found[(cell, part)] is not None}


def with_digest(name: str) -> Registry:
    """The registry after an edit of one plugin's file."""
    plugin = replace(REGISTRY[name], digest="edited")
    return Registry({**REGISTRY.plugins, name: plugin})


# -- cells -------------------------------------------------------------------------------------------------------------


def test_a_method_is_a_cell() -> None:
    assert names() == ["rm", "dpo", "kto", "simpo"]


def test_a_grid_names_what_differs() -> None:
    assert names(methods=["simpo", {"dpo": {"beta": [0.1, 0.5]}}]) == ["simpo", "dpo[beta=0.1]", "dpo[beta=0.5]"]
    assert names(methods=[{"rm": {"learning_rate": [1e-5, 1e-4], "centering": 0.5}}]) == [
        "rm[learning_rate=1e-05]",
        "rm[learning_rate=0.0001]",
    ]


def test_a_grid_is_the_product_of_its_lists() -> None:
    found = names(methods=[{"simpo": {"beta": [2, 10], "gamma": [0.5, 1]}}])
    assert found == [
        "simpo[beta=2.0,gamma=0.5]",
        "simpo[beta=2.0,gamma=1.0]",
        "simpo[beta=10.0,gamma=0.5]",
        "simpo[beta=10.0,gamma=1.0]",
    ]


def test_one_method_named_twice_is_told_apart() -> None:
    assert names(methods=["dpo", {"dpo": {"beta": 0.5}}]) == ["dpo[beta=0.1]", "dpo[beta=0.5]"]


def test_several_seeds_number_the_cells() -> None:
    assert names(methods=["rm", "dpo"], seeds=[3, 1]) == ["rm#3", "dpo#3", "rm#1", "dpo#1"]
    assert names(methods=["rm"], seeds=[3]) == ["rm"]
    grid = names(methods=[{"dpo": {"beta": [0.1, 0.5]}}], seeds=[0, 1])
    assert grid == ["dpo[beta=0.1]#0", "dpo[beta=0.5]#0", "dpo[beta=0.1]#1", "dpo[beta=0.5]#1"]


def test_cells_hold_resolved_parameters() -> None:
    cell = plan(methods=[{"simpo": {"beta": 10, "learning_rate": 1}}]).cells[0]
    assert cell.parameters == {"beta": 10.0, "gamma": 1.25}
    assert cell.learning_rate == 1.0
    assert cell.all_parameters == {"learning_rate": 1.0, "beta": 10.0, "gamma": 1.25}
    assert plan().cells[1].learning_rate == REGISTRY["dpo"].algorithm.learning_rate


def test_cells_know_what_they_are() -> None:
    made = plan()
    assert made.judge is not None
    assert [(cell.algorithm, cell.kind) for cell in every_cell(made)] == [
        ("base", "base"),
        ("judge", "reward"),
        ("rm", "reward"),
        ("dpo", "policy"),
        ("kto", "policy"),
        ("simpo", "policy"),
    ]
    assert made.base.all_parameters == {}
    assert made.judge.all_parameters["method"] == "rm"


def test_values_outside_the_declared_range_are_warned_of() -> None:
    inside, low, high = plan(methods=[{"dpo": {"beta": [0.5, 0.001, 5]}}]).cells
    assert inside.warnings == ()
    assert low.warnings == ("beta=0.001 is outside the range 0.01–0.5 that dpo declares (arXiv:2305.18290)",)
    assert high.warnings == ("beta=5 is outside the range 0.01–0.5 that dpo declares (arXiv:2305.18290)",)
    (both,) = plan(methods=[{"simpo": {"learning_rate": 1, "gamma": 0}}]).cells
    assert [warning.split("=")[0] for warning in both.warnings] == ["learning_rate", "gamma"]
    assert "LoRA adapters" in both.warnings[0]
    assert plan().base.warnings == ()


def test_each_kind_of_cell_has_its_artefacts() -> None:
    made = plan()
    has = {cell.id: {part for part in PARTS if part_of(cell, part) is not None} for cell in every_cell(made)}
    assert has == {
        "base": {"val", "generations", "judged"},
        "judge": {"adapter", "val", "audit"},
        "rm": {"adapter", "val", "audit"},
        "dpo": set(PARTS) - {"audit", "mismatched"},
        "kto": set(PARTS) - {"audit"},
        "simpo": set(PARTS) - {"audit", "reference", "mismatched"},
    }


def test_without_a_judge_nothing_is_judged() -> None:
    made = plan(replace(INPUTS, judge=()), judge=None)
    assert made.judge is None
    assert set(made.tokens) == {"train", "val"}
    assert not any(cell.judged for cell in every_cell(made))
    assert made.cells[1].generations is not None


# -- trials ------------------------------------------------------------------------------------------------------------


def trials(inputs: Inputs = INPUTS, tune: Mapping[str, Any] | None = None, **changes: Any) -> Tuning:
    """The trials of `suite(**changes)` with a `tune`."""
    made = plan_trials(suite(tune=tune or {}, **changes), REGISTRY, inputs)
    assert made is not None
    return made


def test_without_tune_there_are_no_trials() -> None:
    assert plan_trials(suite(), REGISTRY, INPUTS) is None


def test_every_method_has_its_trials_with_one_seed() -> None:
    made = trials(tune={"trials": 3}, seeds=[4, 5])
    assert {name: [cell.id for cell in cells] for name, cells in made.trials.items()} == {
        name: [f"{name} trial {number}" for number in range(3)] for name in ("rm", "dpo", "kto", "simpo")
    }
    assert {cell.seed for cell in made.plan.cells} == {4}
    assert all(cell.generations is cell.audit is None for cell in (made.plan.base, *made.plan.cells))
    given = {name.partition("#")[0] for name in names(seeds=[4, 5])}
    assert set(made.trials) == given


def test_trials_share_no_artefact_with_the_cells_nor_with_each_other() -> None:
    made = trials()
    assert not keys(made.plan) & keys(plan())
    assert len({cell.adapter for cell in made.plan.cells}) == len(made.plan.cells) == 16


def test_tune_changes_no_cell() -> None:
    assert plan(tune={}).fingerprint == plan().fingerprint


@pytest.mark.parametrize("tune", [{"seed": 1}, {"holdout": 0.5}])
def test_other_cut_changes_every_trial(tune: Mapping[str, Any]) -> None:
    assert not keys(trials(tune=tune).plan) & keys(trials().plan)


@pytest.mark.parametrize("inputs", [replace(INPUTS, train="other"), replace(INPUTS, val="other")])
def test_other_rows_change_the_cut(inputs: Inputs) -> None:
    assert set(trials(inputs).plan.tokens.values()).isdisjoint(trials().plan.tokens.values())


def test_more_trials_keep_the_earlier_ones() -> None:
    assert keys(trials().plan) < keys(trials(tune={"trials": 9}).plan)


def test_tuned_parameters_take_the_place_of_the_given_ones() -> None:
    found = {"dpo": {"learning_rate": 3e-4, "beta": 0.25}}
    made = make_plan(suite(seeds=[0, 1]), REGISTRY, INPUTS, found)
    by_hand = plan(seeds=[0, 1], methods=["rm", {"dpo": found["dpo"]}, "kto", "simpo"])
    assert made == by_hand
    assert [cell.all_parameters for cell in made.cells if cell.algorithm == "dpo"] == [found["dpo"]] * 2


def test_values_that_tune_searches_tell_no_cells_apart() -> None:
    with pytest.raises(SuiteError, match="methods: dpo stands twice with equal parameters, those that tune searches"):
        trials(methods=[{"dpo": {"beta": [0.1, 0.5]}}])
    found = trials(methods=[{"kto": {"desirable_weight": [1, 2], "beta": 0.3}}]).trials
    assert list(found) == ["kto[desirable_weight=1.0]", "kto[desirable_weight=2.0]"]
    assert [cells[0].parameters["beta"] for cells in found.values()] == [0.3, 0.3]


# -- what is shared ----------------------------------------------------------------------------------------------------


def test_variants_share_one_reference() -> None:
    first, second = plan(methods=[{"dpo": {"beta": [0.1, 0.5]}}]).cells
    assert first.reference == second.reference is not None
    one, other = plan(methods=["dpo"], seeds=[0, 1]).cells
    assert one.reference == other.reference


def test_single_answers_share_the_reference_and_have_one_more_for_mismatched_answers() -> None:
    made = {cell.id: cell for cell in plan().cells}
    assert made["kto"].reference == made["dpo"].reference is not None
    assert made["kto"].mismatched not in (None, made["kto"].reference)
    assert made["dpo"].mismatched is None
    alone = next(cell for cell in plan(methods=["kto"]).cells)
    assert (alone.reference, alone.mismatched) == (made["kto"].reference, made["kto"].mismatched)


def test_base_of_the_validation_pairs_does_not_depend_on_methods_or_seeds() -> None:
    base = plan().base
    assert plan(methods=["simpo"], seeds=[4, 5], judge=None, lora={"r": 2}).base.val == base.val
    assert base.val.kind == "reference"


def test_every_address_is_listed_once() -> None:
    made = plan(seeds=[0, 1], methods=["rm", {"dpo": {"beta": [0.1, 0.5]}}, "kto"])
    listed = [address for _, address in made.addresses()]
    assert len(listed) == len(set(listed))
    overlaps = {judge.overlap for judge in made.panel}
    assert set(listed) == {address for address in addresses(made).values() if address is not None} | overlaps


def test_equal_suites_have_equal_plans() -> None:
    assert plan() == plan()
    assert plan().fingerprint == plan(name="another-name").fingerprint


def test_default_that_is_written_out_changes_nothing() -> None:
    assert plan(methods=["dpo"]).cells == plan(methods=[{"dpo": {"beta": 0.1}}]).cells
    rate = REGISTRY["dpo"].algorithm.learning_rate
    assert plan(methods=["dpo"]).cells == plan(methods=[{"dpo": {"learning_rate": rate}}]).cells
    whole = [plan(methods=[{"simpo": {"beta": beta}}]).fingerprint for beta in (2, 2.0)]
    assert whole[0] == whole[1]


def keys(made: Plan) -> set[Address]:
    """All addresses, whatever the cells are called."""
    return {address for _, address in made.addresses()}


@pytest.mark.parametrize(
    "more",
    [
        {"seeds": [0, 1]},
        {"methods": ["rm", "dpo", "kto", "simpo", "orpo"]},
        {"methods": ["simpo", "kto", "dpo", "rm"]},
        {"methods": ["rm", {"dpo": {"beta": [0.1, 0.5]}}, "kto", "simpo"]},
    ],
)
def test_growing_suite_keeps_what_it_has(more: Mapping[str, Any]) -> None:
    before, after = plan(), plan(**more)
    assert keys(before) <= keys(after)


# -- what changes with what --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dpo", "kto", "simpo"])
def test_edited_plugin_changes_its_own_cells_only(name: str) -> None:
    made = plan(registry=with_digest(name))
    assert changed(plan(), made) == parts(name, of=("adapter", "val", "generations", "judged", "drift", "audit"))
    assert made.fingerprint != plan().fingerprint


def test_edited_reward_method_changes_the_judge_that_it_trains() -> None:
    everything = changed(plan(), plan(registry=with_digest("rm")))
    assert everything == parts("rm", "judge") | parts("*", of=("judged",))


def test_other_training_rows_change_what_is_trained_on_them() -> None:
    found = changed(plan(), plan(replace(INPUTS, train="other")))
    assert found == {("tokens", "train")} | parts("rm", "dpo", "kto", "simpo")


def test_other_validation_rows_train_nothing_again() -> None:
    found = changed(plan(), plan(replace(INPUTS, val="other")))
    assert found == {("tokens", "val")} | parts("*", of=("val", "generations", "judged", "drift", "audit"))


def test_other_judge_rows_change_only_the_judge_and_its_scores() -> None:
    found = changed(plan(), plan(replace(INPUTS, judge=("other",))))
    assert found == {("tokens", "judge")} | parts("judge") | parts("*", of=("judged",))


@pytest.mark.parametrize(
    "judge", [{"seed": 1}, {"parameters": {"learning_rate": 3e-4}}, {"parameters": {"centering": 1}}]
)
def test_other_judge_settings_change_only_the_judge_and_its_scores(judge: Mapping[str, Any]) -> None:
    found = changed(plan(), plan(judge={"data": "judge.jsonl", **judge}))
    assert found == parts("judge") | parts("*", of=("judged",))


@pytest.mark.parametrize("generate", [{"prompts": 3}, {"max_new_tokens": 5}, {"temperature": 1, "samples": 2}])
def test_other_generation_settings_change_answers_and_their_scores(generate: Mapping[str, Any]) -> None:
    found = changed(plan(), plan(generate=generate))
    assert found == parts("*", of=("generations", "judged", "drift"))


def test_checkpoint_interval_changes_nothing() -> None:
    assert plan(train={"checkpoint_minutes": 1}).fingerprint == plan().fingerprint
    assert changed(plan(), plan(train={"checkpoint_minutes": 1})) == set()


@pytest.mark.parametrize(
    "more",
    [
        {"train": {"epochs": 2}},
        {"train": {"batch_size": 8}},
        {"train": {"warmup": 0.5}},
        {"train": {"schedule": "linear"}},
        {"train": {"weight_decay": 0.1}},
        {"train": {"max_grad_norm": 2.0}},
        {"lora": {"r": 2}},
        {"lora": {"target_modules": ["q_proj"]}},
    ],
)
def test_training_settings_change_all_that_is_trained_and_no_reference(more: Mapping[str, Any]) -> None:
    trained = parts(
        "judge", "rm", "dpo", "kto", "simpo", of=("adapter", "val", "generations", "judged", "drift", "audit")
    )
    assert changed(plan(), plan(**more)) == trained | parts("base", of=("judged",))


@pytest.mark.parametrize("parameters", [{"learning_rate": 1e-3}, {"beta": 0.2}])
def test_other_parameters_change_their_own_cell_only(parameters: Mapping[str, Any]) -> None:
    found = changed(plan(), plan(methods=["rm", {"dpo": dict(parameters)}, "kto", "simpo"]))
    assert found == parts("dpo", of=("adapter", "val", "generations", "judged", "drift", "audit"))


def test_a_method_may_have_training_settings_of_its_own() -> None:
    found = plan(methods=["rm", {"dpo": {"batch_size": [4, 8], "epochs": 2}}, "dpo"])
    assert [cell.id for cell in found.cells] == [
        "rm",
        "dpo[epochs=2,batch_size=4]",
        "dpo[epochs=2,batch_size=8]",
        "dpo",
    ]
    _, four, eight, plain = found.cells
    assert four.settings == {"batch_size": 4, "epochs": 2}
    assert four.all_parameters["batch_size"] == 4
    assert plain.settings == {}
    assert "batch_size" not in plain.all_parameters
    assert len({four.adapter, eight.adapter, plain.adapter}) == 3
    assert four.reference == eight.reference == plain.reference


def test_own_settings_are_those_of_the_suite_where_they_are_equal() -> None:
    """A suite with `train.batch_size: 8` and a method with `batch_size: 8` share the artefact."""
    (own,) = plan(methods=[{"dpo": {"batch_size": 8, "epochs": 2}}]).cells
    (shared,) = plan(methods=["dpo"], train={"batch_size": 8, "epochs": 2}).cells
    assert own.adapter == shared.adapter


@pytest.mark.parametrize("value", [0, -1, 1.5, "8", True, None])
@pytest.mark.parametrize("key", ["epochs", "batch_size"])
def test_own_settings_are_whole_numbers(key: str, value: Any) -> None:
    with pytest.raises(SuiteError, match=f"dpo: {key}: got {value!r}, expected a whole number > 0"):
        plan(methods=[{"dpo": {key: value}}])


def test_a_method_that_trains_nothing_has_no_training_settings() -> None:
    with pytest.raises(SuiteError, match="epochs"):
        plan(methods=["rm", {"best_of_n": {"reward": "rm", "epochs": 2}}])


def test_other_seed_changes_all_cells_but_not_the_judge() -> None:
    found = changed(plan(), plan(seeds=[1]))
    trained = parts("rm", "dpo", "kto", "simpo", of=("adapter", "val", "generations", "judged", "drift", "audit"))
    assert found == trained | parts("base", of=("generations", "judged"))


@pytest.mark.parametrize("where", ["train", "val"])
def test_rule_for_long_rows_changes_that_table(where: str) -> None:
    data: dict[str, Any] = {"train": "train.jsonl", "val": "val.jsonl"}
    data[where] = {"path": data[where], "too_long": "drop"}
    found = changed(plan(), plan(data=data))
    assert {part for part in found if part[0] == "tokens"} == {("tokens", where)}


def test_longest_row_changes_everything() -> None:
    assert changed(plan(), plan(train={"max_length": 99})) == {
        part for part, address in addresses(plan()).items() if address is not None
    }


@pytest.mark.parametrize(
    ("inputs", "tokens"),
    [
        (replace(INPUTS, base="other weights"), True),
        (replace(INPUTS, versions={**INPUTS.versions, "transformers": "6"}), True),
        (replace(INPUTS, precision="nf4/float32/cpu"), False),
        (replace(INPUTS, versions={**INPUTS.versions, "torch": "3"}), False),
    ],
)
def test_base_precision_and_versions_change_everything(inputs: Inputs, tokens: bool) -> None:
    everything = {part for part, address in addresses(plan()).items() if address is not None}
    kept = set() if tokens else {("tokens", split) for split in ("train", "val", "judge")}
    assert changed(plan(), plan(inputs)) == everything - kept


def test_version_of_a_foreign_library_changes_the_recipes_that_train_with_it() -> None:
    def taken(job: Job) -> None:
        """Takes the whole training."""

    plugin = Plugin(
        recipe(data="pairs", paper="none", learning_rate=1e-3, libraries=["foreign"])(taken), Path(), "", ""
    )
    registry = Registry({**REGISTRY.plugins, "taken": plugin})
    before, after = (
        plan(replace(INPUTS, foreign={"foreign": version}), registry, methods=["dpo", "taken"]) for version in "12"
    )
    assert changed(before, after) == parts("taken", made=before)


def test_path_of_a_file_is_not_its_content() -> None:
    moved = plan(base="elsewhere", data={"train": "moved.jsonl", "val": "val.parquet"})
    assert moved.fingerprint == plan().fingerprint


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"betta": 0.1}, r"dpo has no parameter 'betta'\. Did you mean beta"),
        ({"learning_rat": 0.1}, "Did you mean learning_rate"),
        ({"beta": 0}, r"beta: got 0\.0, expected float > 0"),
        ({"beta": "high"}, "beta: got 'high', expected float > 0"),
        ({"beta": None}, "beta: got None, expected float > 0"),
        ({"beta": [0.1, -1]}, r"beta: got -1\.0"),
        ({"beta": [[0.1]]}, r"beta: got \[0\.1\]"),
        ({"beta": float("inf")}, "beta: got inf"),
        ({"learning_rate": 0}, "learning_rate: got 0, expected a number > 0"),
        ({"learning_rate": -1e-5}, "learning_rate: got -1e-05"),
        ({"learning_rate": "1e-5x"}, "learning_rate: got '1e-5x'"),
        ({"learning_rate": True}, "learning_rate: got True"),
        ({"learning_rate": None}, "learning_rate: got None"),
        ({"learning_rate": float("inf")}, "learning_rate: got inf"),
        ({"learning_rate": float("nan")}, "learning_rate: got nan"),
    ],
)
def test_bad_parameter_is_told_with_its_method(parameters: Mapping[str, Any], said: str) -> None:
    with pytest.raises(SuiteError, match=said) as caught:
        plan(methods=["rm", {"dpo": dict(parameters)}])
    assert "methods: dpo" in str(caught.value)


def test_bad_parameter_of_the_judge_is_told() -> None:
    with pytest.raises(SuiteError, match=r"judge\.parameters: rm has no parameter 'beta'"):
        plan(judge={"data": "judge.jsonl", "parameters": {"beta": 1}})
    with pytest.raises(SuiteError, match=r"judge\.parameters: learning_rate: got 0"):
        plan(judge={"data": "judge.jsonl", "parameters": {"learning_rate": 0}})


def test_unknown_method_suggests_the_nearest() -> None:
    with pytest.raises(PluginError, match=r"no method 'dop'\. Did you mean dpo"):
        plan(methods=["dop"])
    with pytest.raises(PluginError, match=r"no method 'rmm'\. Did you mean rm"):
        plan(judge={"method": "rmm", "data": "judge.jsonl"})


def test_broken_method_is_fatal_only_where_it_is_selected() -> None:
    registry = Registry(REGISTRY.plugins, (Broken("mine", Path("mine.py"), "RuntimeError: no luck"),))
    assert plan(registry=registry) == plan()
    with pytest.raises(PluginError, match=r"mine\.py cannot be loaded: RuntimeError: no luck"):
        plan(registry=registry, methods=["dpo", "mine"])


def test_judge_must_be_a_reward_method() -> None:
    with pytest.raises(SuiteError, match=r"judge\.method: dpo trains a policy, expected a reward method") as caught:
        plan(judge={"method": "dpo", "data": "judge.jsonl"})
    known = str(caught.value).partition("Known reward methods: ")[2]
    assert "rm" in known.strip(".").split(", ")
    assert "dpo" not in known


@pytest.mark.parametrize(
    ("methods", "named"),
    [
        (["dpo", "dpo"], "dpo"),
        (["dpo", {"dpo": {"beta": 0.1}}], "dpo"),
        ([{"dpo": {"beta": [0.5, 0.5]}}], "dpo"),
        ([{"simpo": {"beta": [2, 2.0]}}], "simpo"),
        (["rm", "dpo", {"dpo": {"beta": [0.2, 0.1]}}], r"dpo\[beta=0.1\]"),
    ],
)
@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_duplicates_are_named(methods: list[Any], named: str, seeds: list[int]) -> None:
    with pytest.raises(SuiteError, match=rf"methods: {named}.* stands twice"):
        plan(methods=methods, seeds=seeds)


def test_epsilons_measure_reward_models_again_and_nothing_else() -> None:
    before, after = plan(), plan(evaluate={"epsilons": [0.1]})
    moved = {
        cell.id for cell, other in zip(every_cell(before), every_cell(after), strict=True) if cell.val != other.val
    }
    assert moved == {"judge", "rm"}
    assert [cell.adapter for cell in before.cells] == [cell.adapter for cell in after.cells]


# -- online methods ----------------------------------------------------------------------------------------------------


def by_id(made: Plan) -> dict[str, Cell]:
    return {cell.id: cell for cell in made.cells}


def test_an_online_method_learns_from_the_reward_model_it_names_with_its_own_seed() -> None:
    found = by_id(plan(methods=[{"ppo": {"reward": "rm"}}, "rm"], seeds=[0, 1]))
    assert list(found) == ["ppo#0", "rm#0", "ppo#1", "rm#1"]  # in the suite's order, though rm is laid out first
    assert found["ppo#0"].reward == found["rm#0"]
    assert found["ppo#1"].reward == found["rm#1"]
    assert found["rm#0"].reward is None


def test_the_first_of_several_rewards_counts() -> None:
    found = by_id(plan(methods=[{"rm": {"centering": [0.0, 0.5]}}, "rloo"]))
    assert found["rloo"].reward == found["rm[centering=0.0]"]


def test_gold_needs_no_reward_model() -> None:
    (cell,) = plan(methods=[{"grpo": {"reward": "gold"}}]).cells
    assert cell.reward is None
    assert cell.reference is None  # it measures its own answers, which no table holds


def test_another_reward_changes_what_rests_on_it() -> None:
    methods: list[Any] = [{"rm": {"centering": 0.0}}, "ppo", {"grpo": {"reward": "gold"}}]
    before = plan(methods=methods)
    after = plan(methods=[{"rm": {"centering": 0.5}}, *methods[1:]])
    assert {cell for cell, _ in changed(before, after)} == {"rm", "ppo"}


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (["ppo"], "ppo: reward: 'rm' is no reward model of this suite"),
        (["dpo", {"ppo": {"reward": "dpo"}}], "ppo: reward: 'dpo' is no reward model"),
        (["rm", {"ppo": {"reward": "judge"}}], "ppo: reward: 'judge' is no reward model"),
        (["poe_rm", {"ppo": {"reward": "poe"}}], "Did you mean poe_rm"),
    ],
)
def test_a_reward_that_the_suite_does_not_train_is_told(methods: list[Any], message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        plan(methods=methods)


def test_a_judge_is_no_reward_unless_the_suite_says_so() -> None:
    same = {"method": "rm", "data": "train.jsonl"}
    rows = replace(INPUTS, judge=(INPUTS.train,))
    with pytest.raises(SuiteError, match="its reward rm is the judge itself"):
        plan(rows, methods=["rm", "ppo"], judge=same)
    plan(rows, methods=["rm", "dpo"], judge=same)
    plan(rows, methods=["rm", "ppo"], judge={**same, "seed": 1})
    allowed = plan(rows, methods=["rm", "ppo"], judge={**same, "may_be_reward": True})
    assert allowed.judge is not None
    assert by_id(allowed)["rm"].adapter == allowed.judge.adapter


def test_gold_as_the_judge_is_no_reward_either() -> None:
    online = ["rm", {"ppo": {"reward": "gold"}}]
    plan(methods=online)  # the gold judge's verdict is always shown; no one called it the judge
    with pytest.raises(SuiteError, match=r"its reward gold is the judge itself \(gold\)"):
        plan(replace(INPUTS, judge=(None,)), methods=online, judge="gold")
    plan(replace(INPUTS, judge=(None,)), methods=online, judge={"method": "gold", "may_be_reward": True})


def test_no_judge_of_several_may_be_the_reward() -> None:
    judges = [{"method": "rm", "data": "other.jsonl"}, {"method": "rm", "data": "train.jsonl"}]
    with pytest.raises(SuiteError, match="its reward rm is the judge itself"):
        plan(replace(INPUTS, judge=("other", INPUTS.train)), methods=["rm", "ppo"], judge=judges)


def test_each_judge_has_its_cells_rows_and_scores() -> None:
    judges = [
        {"method": "rm", "data": "judge.jsonl", "ensemble": {"size": 2}},
        {"model": "some/model"},
        {"method": "poe_rm", "data": "other.jsonl"},
        "gold",
    ]
    made = plan(replace(INPUTS, judge=("judge rows", "commit", "other rows", None)), judge=judges)
    assert [judge.name for judge in made.panel] == ["2 × rm, mean", "some/model", "poe_rm", "gold"]
    assert [cell.id for cell in made.judges] == ["judge#0", "judge#1", "judge2", "judge3"]
    assert [cell.rows for cell in made.judges] == ["judge", "judge", "judge2", "judge3"]
    assert {cell.algorithm for cell in made.judges} == {"judge"}
    assert {cell.kind for cell in made.judges} == {"reward"}
    assert set(made.tokens) == {"train", "val", "judge", "judge3"}
    for cell in (made.base, *made.cells):
        assert list(cell.judged) == ([] if cell.kind == "reward" else [judge.id for judge in made.judges])
        assert len(set(cell.judged.values())) == len(cell.judged)
    other = plan(replace(INPUTS, judge=("judge rows", "another commit", "other rows", None)), judge=judges)
    moved = {name for name, address in made.base.judged.items() if other.base.judged[name] != address}
    assert moved == {"judge2"}
    assert other.judges[2].audit != made.judges[2].audit
    assert other.judges[3].audit == made.judges[3].audit


def test_without_audited_pairs_nothing_is_audited() -> None:
    assert all(cell.audit is None for cell in every_cell(plan(audit={"pairs": 0})))


def test_trials_of_an_online_method_learn_from_the_rewards_first_trial() -> None:
    tuning = plan_trials(suite(methods=["rloo", "rm"], tune={"trials": 2}), REGISTRY, INPUTS)
    assert tuning is not None
    assert [cell.reward for cell in tuning.trials["rloo"]] == 2 * [tuning.trials["rm"][0]]
