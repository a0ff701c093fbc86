"""The graph: which cells there are, which artefacts change with what, and how it grows with results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from align_bench.api import Job, recipe
from align_bench.data.preferences import DataSource
from align_bench.errors import PluginError, SuiteError
from align_bench.models.base import Base
from align_bench.models.precision import Precision
from align_bench.planning.cells import Cell
from align_bench.planning.graph import Graph, make_graph
from align_bench.planning.inputs import Inputs, Prepared
from align_bench.planning.known import Known, NothingKnown
from align_bench.plugins.registry import Broken, Plugin, Registry, load_registry
from align_bench.records import CellId, Json, TemplateInputs
from align_bench.stages import stage as stage_module
from align_bench.stages.audit import Audit
from align_bench.stages.classifier import Classifier
from align_bench.stages.drift import Drift
from align_bench.stages.generate import Generate
from align_bench.stages.judge import Judge
from align_bench.stages.models import Frozen
from align_bench.stages.proxy import Proxy
from align_bench.stages.reference import Reference
from align_bench.stages.rows import Rows
from align_bench.stages.stage import MODEL_LIBRARIES, TEXT_LIBRARIES, Stage, closure_of
from align_bench.stages.tokens import Tokens
from align_bench.stages.train import Train
from align_bench.stages.validate_reward import ValidateReward
from align_bench.store.failures import Failure
from align_bench.suite.load import load_suite
from align_bench.suite.models import LoadedJudge, Suite, TrainedJudge, judge_cell

REGISTRY = load_registry()
PARTS = ("adapter", "reference", "mismatched", "validation", "generations", "judged", "drift", "audit", "proxy")
OF_TRAINED = ("adapter", "validation", "generations", "judged", "drift", "audit")

AnyStage = Stage[object]
Part = tuple[str, str]


@dataclass(frozen=True)
class Outside:
    """What lies outside a suite.

    Attributes:
        train, val: fingerprints of the rows.
        judges: for each judge of the suite, the fingerprint of its rows, or the digest of the loaded model; None for
            gold.
        base: digest of the base.
        storage: how the base is stored.
        date: the day that its template writes.
        kwargs: what else its template reads.
    """

    train: str = "train rows"
    val: str = "val rows"
    judges: tuple[str | None, ...] = ("judge rows",)
    base: str = "weights"
    storage: str = "fp32"
    date: str | None = None
    kwargs: Mapping[str, Json] = field(default_factory=dict)


OUTSIDE = Outside()


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


def inputs(given: Suite, outside: Outside) -> Inputs:
    """What `prepare` would find for the suite; no file is read."""
    precision = Precision(outside.storage, "float32", "cpu")
    files = {"train": (given.data.train, outside.train), "val": (given.data.val, outside.val)}
    if given.data.test is not None:
        files["test"] = given.data.test, "test rows"
    classifiers = {}
    for place, judge in enumerate(given.judge):
        if isinstance(judge, TrainedJudge):
            files[judge_cell(place)] = judge.data, str(outside.judges[place])
        if isinstance(judge, LoadedJudge):
            model = Base(judge.model, Path("judge"), None, str(outside.judges[place]), "judge")
            classifiers[judge_cell(place)] = Classifier(model, precision, judge.template, judge)
    frozen = Frozen(
        Base(given.base, Path("base"), None, outside.base), precision, TemplateInputs(outside.kwargs, outside.date)
    )
    rows = {
        split: Rows(DataSource(", ".join(file.paths)), content, file.too_long)
        for split, (file, content) in files.items()
    }
    return Inputs(frozen, rows, classifiers)


def plan(
    outside: Outside = OUTSIDE, registry: Registry = REGISTRY, known: Known | None = None, **changes: Any
) -> Graph:
    """The graph of `suite(**changes)`, its addresses computed by the libraries that are here now."""
    given = suite(**changes)
    made = make_graph(Prepared(given, registry, inputs(given, outside)), known or NothingKnown())
    assert made.key
    return made


def names(**changes: Any) -> list[str]:
    """The cells' ids, in their order."""
    return [str(cell.id) for cell in plan(**changes).cells]


def every_cell(made: Graph) -> list[Cell]:
    """The base, the judges and all methods' cells."""
    return [made.base, *made.judges, *made.cells]


def by_id(made: Graph) -> dict[str, Cell]:
    """The methods' cells by their name."""
    return {str(cell.id): cell for cell in made.cells}


def part_of(cell: Cell, part: str) -> AnyStage | None:
    """A stage of a cell; of the judges' scores, and of those by own rewards, that of the only one."""
    adapter = cell.adapter
    if part in ("reference", "mismatched"):
        return getattr(adapter, part) if isinstance(adapter, Train) else None
    kinds: dict[str, type[AnyStage]] = {"judged": Judge, "drift": Drift, "audit": Audit, "proxy": Proxy}
    if part in kinds:
        found = cell.all(kinds[part])
        assert len(found) < 2
        return found[0] if found else None
    return {"adapter": adapter, "validation": cell.validation, "generations": cell.answers}[part]


def every_part(made: Graph) -> dict[Part, AnyStage | None]:
    """(cell, part) → stage, and ("tokens", split) → table."""
    found: dict[Part, AnyStage | None] = {("tokens", split): table for split, table in made.tables.items()}
    return found | {(str(cell.id), part): part_of(cell, part) for cell in every_cell(made) for part in PARTS}


def changed(before: Graph, after: Graph) -> set[Part]:
    """What has another address in the second graph; both must have the same cells."""
    old, new = every_part(before), every_part(after)
    assert set(old) == set(new)
    return {part for part in old if old[part] != new[part]}


def parts(*cells: str, of: tuple[str, ...] = PARTS, made: Graph | None = None) -> set[Part]:
    """The existing parts of some cells (`*` for all)."""
    made = made or plan()
    ids = [str(cell.id) for cell in every_cell(made)] if cells == ("*",) else cells
    found = every_part(made)
    return {(cell, part) for cell in ids for part in of if found[(cell, part)] is not None}


def everything(made: Graph) -> set[Part]:
    """All parts, tables included."""
    return {part for part, stage in every_part(made).items() if stage is not None}


def with_digest(name: str) -> Registry:
    """The registry after an edit of one plugin's file."""
    plugin = replace(REGISTRY[name], given_digest="edited")
    return Registry({**REGISTRY.plugins, name: plugin})


# -- cells -------------------------------------------------------------------------------------------------------------


def test_a_method_is_a_cell() -> None:
    assert names() == ["rm", "dpo", "kto", "simpo"]
    assert names(methods=["simpo", {"dpo": {"beta": [0.1, 0.5]}}]) == ["simpo", "dpo[beta=0.1]", "dpo[beta=0.5]"]


def test_several_seeds_number_the_cells() -> None:
    assert names(methods=["rm", "dpo"], seeds=[3, 1]) == ["rm#3", "dpo#3", "rm#1", "dpo#1"]
    assert names(methods=["rm"], seeds=[3]) == ["rm"]
    grid = plan(methods=[{"dpo": {"beta": [0.1, 0.5]}}], seeds=[0, 1]).cells
    assert [str(cell.id) for cell in grid] == [
        "dpo[beta=0.1]#0",
        "dpo[beta=0.5]#0",
        "dpo[beta=0.1]#1",
        "dpo[beta=0.5]#1",
    ]
    assert [str(cell.id.method) for cell in grid] == ["dpo[beta=0.1]", "dpo[beta=0.5]"] * 2
    assert [cell.seed for cell in grid] == [0, 0, 1, 1]


def test_cells_hold_resolved_parameters() -> None:
    cell = plan(methods=[{"simpo": {"beta": 10, "learning_rate": 1}}]).cells[0]
    assert cell.parameters == {"beta": 10.0, "gamma": 1.25}
    assert cell.learning_rate == 1.0
    assert cell.all_parameters == {"learning_rate": 1.0, "beta": 10.0, "gamma": 1.25}
    assert cell.adapter is not None
    assert (cell.adapter.parameters, cell.adapter.learning_rate) == (cell.parameters, 1.0)
    assert plan().cells[1].learning_rate == REGISTRY["dpo"].algorithm.learning_rate


def test_cells_know_what_they_are() -> None:
    made = plan()
    assert [(cell.algorithm, cell.kind) for cell in every_cell(made)] == [
        ("base", "base"),
        ("judge", "reward"),
        ("rm", "reward"),
        ("dpo", "policy"),
        ("kto", "policy"),
        ("simpo", "policy"),
    ]
    assert made.base.all_parameters == {}
    assert made.judges[0].all_parameters["method"] == "rm"


def test_values_outside_the_declared_range_are_warned_of() -> None:
    inside, low, high = plan(methods=[{"dpo": {"beta": [0.5, 0.001, 5]}}]).cells
    assert inside.warnings == ()
    assert low.warnings == ("beta=0.001 is outside the range 0.01–0.5 that dpo declares (arXiv:2305.18290)",)
    assert high.warnings == ("beta=5 is outside the range 0.01–0.5 that dpo declares (arXiv:2305.18290)",)
    (both,) = plan(methods=[{"simpo": {"learning_rate": 1, "gamma": 0}}]).cells
    assert [warning.split("=")[0] for warning in both.warnings] == ["learning_rate", "gamma"]
    assert "LoRA adapters" in both.warnings[0]
    assert plan().base.warnings == ()


def test_each_kind_of_cell_has_its_stages() -> None:
    made = plan()
    has = {str(cell.id): {part for part in PARTS if part_of(cell, part) is not None} for cell in every_cell(made)}
    assert has == {
        "base": {"validation", "generations", "judged"},
        "judge": {"adapter", "validation", "audit"},
        "rm": {"adapter", "validation", "audit"},
        "dpo": set(PARTS) - {"audit", "mismatched", "proxy"},
        "kto": set(PARTS) - {"audit", "proxy"},
        "simpo": set(PARTS) - {"audit", "reference", "mismatched", "proxy"},
    }
    assert all(cell.waiting is None for cell in every_cell(made))


def test_without_a_judge_nothing_is_judged() -> None:
    made = plan(replace(OUTSIDE, judges=()), judge=None)
    assert made.judges == ()
    assert made.panel == ()
    assert set(made.tables) == {"train", "val"}
    assert not any(cell.all(Judge) for cell in every_cell(made))
    assert made.cells[1].answers is not None


def test_reward_models_alone_need_no_answers() -> None:
    made = plan(replace(OUTSIDE, judges=()), judge=None, methods=["rm", "poe_rm"])
    kinds = {type(stage) for stage in made.stages}
    assert kinds == {Tokens, Reference, Train, ValidateReward, Audit}
    assert made.base.answers is None
    assert made.base.validation is not None


def test_a_judge_of_reward_models_alone_is_a_cell_of_its_own_and_scores_nothing() -> None:
    made = plan(methods=["rm"])
    has = {str(cell.id): {part for part in PARTS if part_of(cell, part) is not None} for cell in every_cell(made)}
    scorer = {"adapter", "validation", "audit"}
    assert has == {"base": {"validation"}, "judge": scorer, "rm": scorer}


def test_the_packaged_suite_of_reward_models_generates_nothing() -> None:
    given = load_suite("debias")
    registry = load_registry()
    named = {method.name for method in given.methods}
    assert {registry[name].algorithm.kind for name in named} == {"reward"}
    made = make_graph(Prepared(given, registry, inputs(given, OUTSIDE)), NothingKnown())
    assert made.panel == ()
    assert not any(isinstance(stage, Generate | Judge | Drift) for stage in made.stages)


# -- stages ------------------------------------------------------------------------------------------------------------


def test_every_stage_is_listed_once_and_after_what_it_needs() -> None:
    made = plan(seeds=[0, 1], methods=["rm", {"dpo": {"beta": [0.1, 0.5]}}, "kto"])
    listed = list(made.stages)
    assert len(listed) == len({stage.address for stage in listed})
    found = {stage for stage in every_part(made).values() if stage is not None}
    assert set(listed) == found | {judge.overlap for judge in made.panel}
    for place, stage in enumerate(listed):
        assert all(listed.index(needed) < place for needed in stage.needs())


def test_what_scores_answers_comes_before_what_writes_them() -> None:
    made = plan(methods=["dpo", "rm", {"ppo": {"reward": "rm"}}])
    order = [stage.owner for stage in made.stages if isinstance(stage, Audit | Generate)]
    assert order == ["judge", "rm", "base", "dpo", "ppo"]


def test_equal_stages_have_the_same_address_whatever_their_owner() -> None:
    made = plan()
    reference = made.base.validation
    assert isinstance(reference, Reference)
    same = replace(reference, owner="another", stored_as="elsewhere", max_tokens=1, label="other words")
    assert same == reference
    assert hash(same) == hash(reference)
    assert same.address == reference.address
    assert closure_of([reference, same]) == closure_of([reference]) == [made.tables["val"], reference]
    other = replace(reference, table=made.tables["train"])
    assert other != reference
    assert other.address.kind == reference.address.kind
    assert reference != reference.address


def test_rows_of_one_content_are_one_table() -> None:
    made = plan(replace(OUTSIDE, train="same", val="same", judges=("same",)))
    assert len(set(made.tables.values())) == 1
    assert part_of(by_id(made)["dpo"], "reference") == made.base.validation
    assert made.judges[0].adapter == by_id(made)["rm"].adapter


# -- what is shared ----------------------------------------------------------------------------------------------------


def test_variants_share_one_reference() -> None:
    first, second = plan(methods=[{"dpo": {"beta": [0.1, 0.5]}}]).cells
    assert part_of(first, "reference") == part_of(second, "reference") is not None
    one, other = plan(methods=["dpo"], seeds=[0, 1]).cells
    assert part_of(one, "reference") == part_of(other, "reference")


def test_single_answers_share_the_reference_and_have_one_more_for_mismatched_answers() -> None:
    made = by_id(plan())
    both = ("reference", "mismatched")
    shared, mismatched = (part_of(made["kto"], part) for part in both)
    assert shared == part_of(made["dpo"], "reference") is not None
    assert mismatched not in (None, shared)
    assert part_of(made["dpo"], "mismatched") is None
    (alone,) = plan(methods=["kto"]).cells
    assert [part_of(alone, part) for part in both] == [shared, mismatched]


def test_base_of_the_validation_pairs_does_not_depend_on_methods_or_seeds() -> None:
    base = plan().base
    assert plan(methods=["simpo"], seeds=[4, 5], judge=None, lora={"r": 2}).base.validation == base.validation
    assert isinstance(base.validation, Reference)


def test_equal_suites_have_equal_graphs() -> None:
    assert plan() == plan()
    assert plan().key == plan(name="another-name").key


def test_default_that_is_written_out_changes_nothing() -> None:
    assert plan(methods=["dpo"]).cells == plan(methods=[{"dpo": {"beta": 0.1}}]).cells
    rate = REGISTRY["dpo"].algorithm.learning_rate
    assert plan(methods=["dpo"]).cells == plan(methods=[{"dpo": {"learning_rate": rate}}]).cells
    whole = [plan(methods=[{"simpo": {"beta": beta}}]).key for beta in (2, 2.0)]
    assert whole[0] == whole[1]


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
    assert set(before.stages) <= set(after.stages)


def test_another_order_of_methods_is_the_same_work() -> None:
    assert plan(methods=["simpo", "kto", "dpo", "rm"]).key == plan().key


# -- what changes with what --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dpo", "kto", "simpo"])
def test_edited_plugin_changes_its_own_cells_only(name: str) -> None:
    made = plan(registry=with_digest(name))
    assert changed(plan(), made) == parts(name, of=OF_TRAINED)
    assert made.key != plan().key


def test_edited_reward_method_changes_the_judge_that_it_trains() -> None:
    found = changed(plan(), plan(registry=with_digest("rm")))
    assert found == parts("rm", "judge") | parts("*", of=("judged",))


def test_other_training_rows_change_what_is_trained_on_them() -> None:
    found = changed(plan(), plan(replace(OUTSIDE, train="other")))
    assert found == {("tokens", "train")} | parts("rm", "dpo", "kto", "simpo")


def test_other_validation_rows_train_nothing_again() -> None:
    found = changed(plan(), plan(replace(OUTSIDE, val="other")))
    assert found == {("tokens", "val")} | parts("*", of=("validation", "generations", "judged", "drift", "audit"))


def test_other_judge_rows_change_only_the_judge_and_its_scores() -> None:
    before, after = plan(), plan(replace(OUTSIDE, judges=("other",)))
    assert changed(before, after) == {("tokens", "judge")} | parts("judge") | parts("*", of=("judged",))
    assert before.panel[0].overlap != after.panel[0].overlap


@pytest.mark.parametrize(
    "judge", [{"seed": 1}, {"parameters": {"learning_rate": 3e-4}}, {"parameters": {"centering": 1}}]
)
def test_other_judge_settings_change_only_the_judge_and_its_scores(judge: Mapping[str, Any]) -> None:
    before, after = plan(), plan(judge={"data": "judge.jsonl", **judge})
    assert changed(before, after) == parts("judge") | parts("*", of=("judged",))
    assert before.panel[0].overlap == after.panel[0].overlap


@pytest.mark.parametrize("generate", [{"prompts": 3}, {"max_new_tokens": 5}, {"temperature": 1, "samples": 2}])
def test_other_generation_settings_change_answers_and_their_scores(generate: Mapping[str, Any]) -> None:
    found = changed(plan(), plan(generate=generate))
    assert found == parts("*", of=("generations", "judged", "drift"))


@pytest.mark.parametrize("how", ["activation_checkpointing", "cuda_graphs"])
def test_how_passes_are_computed_changes_what_is_trained(how: str) -> None:
    assert changed(plan(), plan(train={how: False})) == set()
    found = changed(plan(), plan(train={how: True}))
    assert found == changed(plan(), plan(train={"warmup": 0.5}))


def test_checkpoint_interval_changes_nothing() -> None:
    assert plan(train={"checkpoint_minutes": 1}).key == plan().key
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
    trained = parts("judge", "rm", "dpo", "kto", "simpo", of=OF_TRAINED)
    assert changed(plan(), plan(**more)) == trained | parts("base", of=("judged",))


@pytest.mark.parametrize("parameters", [{"learning_rate": 1e-3}, {"beta": 0.2}])
def test_other_parameters_change_their_own_cell_only(parameters: Mapping[str, Any]) -> None:
    found = changed(plan(), plan(methods=["rm", {"dpo": dict(parameters)}, "kto", "simpo"]))
    assert found == parts("dpo", of=OF_TRAINED)


def test_a_method_may_have_training_settings_of_its_own() -> None:
    found = plan(methods=["rm", {"dpo": {"batch_size": [4, 8], "epochs": 2}}, "dpo"])
    _, four, eight, plain = found.cells
    assert four.settings == {"batch_size": 4, "epochs": 2}
    assert four.all_parameters["batch_size"] == 4
    assert plain.settings == {}
    assert "batch_size" not in plain.all_parameters
    assert len({four.adapter, eight.adapter, plain.adapter}) == 3
    references = [part_of(cell, "reference") for cell in (four, eight, plain)]
    assert references[0] == references[1] == references[2] is not None


def test_own_settings_are_those_of_the_suite_where_they_are_equal() -> None:
    """A suite with `train.batch_size: 8` and a method with `batch_size: 8` share the artefact."""
    (own,) = plan(methods=[{"dpo": {"batch_size": 8, "epochs": 2}}]).cells
    (shared,) = plan(methods=["dpo"], train={"batch_size": 8, "epochs": 2}).cells
    assert own.adapter == shared.adapter


def test_other_seed_changes_all_cells_but_not_the_judge() -> None:
    found = changed(plan(), plan(seeds=[1]))
    trained = parts("rm", "dpo", "kto", "simpo", of=OF_TRAINED)
    assert found == trained | parts("base", of=("generations", "judged"))


@pytest.mark.parametrize("where", ["train", "val"])
def test_rule_for_long_rows_changes_that_table(where: str) -> None:
    data: dict[str, Any] = {"train": "train.jsonl", "val": "val.jsonl"}
    data[where] = {"path": data[where], "too_long": "drop"}
    found = changed(plan(), plan(data=data))
    assert {part for part in found if part[0] == "tokens"} == {("tokens", where)}


def test_longest_row_changes_everything() -> None:
    assert changed(plan(), plan(train={"max_length": 99})) == everything(plan())


@pytest.mark.parametrize("outside", [replace(OUTSIDE, base="other weights"), replace(OUTSIDE, date="1 May 2020")])
def test_another_base_or_day_in_its_template_changes_everything(outside: Outside) -> None:
    assert changed(plan(), plan(outside)) == everything(plan())


def test_what_the_template_reads_changes_everything_and_only_where_it_is_set() -> None:
    assert changed(plan(), plan(replace(OUTSIDE, kwargs={"enable_thinking": False}))) == everything(plan())
    for stage in plan().stages:
        assert "chat_template_kwargs" not in stage.identity()


def test_another_precision_changes_all_but_the_tables() -> None:
    tables = {("tokens", split) for split in ("train", "val", "judge")}
    before, after = plan(), plan(replace(OUTSIDE, storage="nf4"))
    assert changed(before, after) == everything(before) - tables
    assert before.panel[0].overlap == after.panel[0].overlap


def test_path_of_a_file_is_not_its_content() -> None:
    moved = plan(base="elsewhere", data={"train": "moved.jsonl", "val": "val.parquet"})
    assert moved.key == plan().key


def test_epsilons_measure_reward_models_again_and_nothing_else() -> None:
    assert changed(plan(), plan(evaluate={"epsilons": [0.1]})) == parts("judge", "rm", of=("validation",))


# -- versions of libraries ---------------------------------------------------------------------------------------------

Upgrade = Callable[[str], None]


@pytest.fixture
def upgrade(monkeypatch: pytest.MonkeyPatch) -> Upgrade:
    """Makes another version of one library be installed, whether it is or not."""
    installed = stage_module._version

    def upgraded(library: str) -> None:
        monkeypatch.setattr(
            stage_module, "_version", lambda one: "another version" if one == library else installed(one)
        )

    return upgraded


def moved(before: Graph, after: Graph) -> set[AnyStage]:
    """The stages of one graph that are not in another one."""
    return set(before.stages) - set(after.stages)


@pytest.mark.parametrize("library", sorted({*TEXT_LIBRARIES, *MODEL_LIBRARIES, "scipy", "trl", "pyphen"}))
def test_a_library_changes_the_stages_that_declare_it_and_what_rests_on_them(library: str, upgrade: Upgrade) -> None:
    methods = ["rm", "dpo", "kto", {"ppo": {"reward": "rm"}}, {"best_of_n": {"n": 2, "reward": "rm"}}]
    before = plan(methods=methods, known=Stored(everywhere=True), tune={"trials": 2})
    upgrade(library)
    after = plan(methods=methods, known=Stored(everywhere=True), tune={"trials": 2})
    touched = {stage for stage in before.stages if any(library in one.libraries for one in closure_of([stage]))}
    assert moved(before, after) == touched
    assert bool(touched) == (library not in ("trl", "pyphen"))


@pytest.mark.parametrize("library", TEXT_LIBRARIES)
def test_what_writes_tokens_changes_everything(library: str, upgrade: Upgrade) -> None:
    before = plan()
    upgrade(library)
    after = plan()
    assert changed(before, after) == everything(before)
    assert moved(before, after) == set(before.stages)


@pytest.mark.parametrize("library", sorted(set(MODEL_LIBRARIES) - set(TEXT_LIBRARIES)))
def test_what_computes_changes_all_but_the_tables(library: str, upgrade: Upgrade) -> None:
    before = plan()
    upgrade(library)
    after = plan()
    tables = {("tokens", split) for split in before.tables}
    assert changed(before, after) == everything(before) - tables
    assert moved(before, after) == set(before.stages) - set(before.tables.values()) - {before.panel[0].overlap}


def test_what_chooses_among_trials_changes_the_choices_alone(upgrade: Upgrade) -> None:
    before = plan(known=Stored(everywhere=True), tune={})
    upgrade("scipy")
    after = plan(known=Stored(everywhere=True), tune={})
    choices = {search.choice for search in before.searches.values()}
    assert len(choices) == 4
    assert moved(before, after) == choices


def test_version_of_a_foreign_library_changes_the_recipes_that_train_with_it(upgrade: Upgrade) -> None:
    def taken(job: Job) -> None:
        """Takes the whole training."""

    def registry(*libraries: str) -> Registry:
        declared = recipe(data="pairs", paper="none", learning_rate=1e-3, libraries=libraries)(taken)
        return Registry({**REGISTRY.plugins, "taken": Plugin(declared, Path(), "", "")})

    methods = ["dpo", "taken"]
    before = plan(registry=registry("pytest"), methods=methods)
    upgrade("pytest")
    after = plan(registry=registry("pytest"), methods=methods)
    assert changed(before, after) == parts("taken", made=before)
    assert before.base == after.base, "the base's log-probabilities are none of the foreign trainer's"
    with pytest.raises(PluginError, match="no-such-library is not installed"):
        plan(registry=registry("no-such-library"), methods=methods)


# -- what is refused ---------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_duplicates_are_named(seeds: list[int]) -> None:
    with pytest.raises(SuiteError, match=r"methods: dpo\[beta=0.1\].* is listed twice"):
        plan(methods=["rm", "dpo", {"dpo": {"beta": [0.2, 0.1]}}], seeds=seeds)


# -- methods with a reward ---------------------------------------------------------------------------------------------


def test_an_online_method_learns_from_the_reward_model_it_names_with_its_own_seed() -> None:
    found = by_id(plan(methods=[{"ppo": {"reward": "rm"}}, "rm"], seeds=[0, 1]))
    assert list(found) == ["ppo#0", "rm#0", "ppo#1", "rm#1"]  # in the suite's order, though rm is laid out first
    for seed in "01":
        policy, reward = found[f"ppo#{seed}"], found[f"rm#{seed}"]
        assert policy.reward == reward
        assert policy.adapter is not None
        assert reward.adapter in policy.adapter.needs()
    assert found["rm#0"].reward is None


def test_the_first_of_several_rewards_counts() -> None:
    found = by_id(plan(methods=[{"rm": {"centering": [0.0, 0.5]}}, "rloo"]))
    assert found["rloo"].reward == found["rm[centering=0.0]"]


def test_gold_needs_no_reward_model() -> None:
    (cell,) = plan(methods=[{"grpo": {"reward": "gold"}}]).cells
    assert cell.reward is None
    assert part_of(cell, "reference") is None  # it measures its own answers, which no table holds


def test_another_reward_changes_what_rests_on_it() -> None:
    methods: list[Any] = [{"rm": {"centering": 0.0}}, "ppo", {"grpo": {"reward": "gold"}}]
    before = plan(methods=methods)
    after = plan(methods=[{"rm": {"centering": 0.5}}, *methods[1:]])
    assert {cell for cell, _ in changed(before, after)} == {"rm", "ppo", "base"}
    assert ("base", "proxy") in changed(before, after)
    assert {part for cell, part in changed(before, after) if cell == "base"} == {"proxy"}


def test_the_base_is_scored_by_every_reward_that_a_policy_rests_on() -> None:
    methods: list[Any] = [
        "rm",
        {"rm": {"centering": 0.5}},
        "ppo",
        "poe_rm",
        {"best_of_n": {"n": 2, "reward": "poe_rm"}},
    ]
    found = plan(methods=methods)
    assert [str(proxy.reward_cell) for proxy in found.base.all(Proxy)] == ["rm[centering=0.01]", "poe_rm"]
    assert all(proxy.answers == found.base.answers and proxy.optional for proxy in found.base.all(Proxy))
    own = {
        str(cell.id): [str(proxy.reward_cell) for proxy in cell.all(Proxy)] for cell in found.cells if cell.all(Proxy)
    }
    assert own == {"ppo": ["rm[centering=0.01]"], "best_of_n": ["poe_rm"]}


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (["ppo"], "ppo: reward: 'rm' is not a reward model of this suite"),
        (["dpo", {"ppo": {"reward": "dpo"}}], "ppo: reward: 'dpo' is not a reward model"),
        (["rm", {"ppo": {"reward": "judge"}}], "ppo: reward: 'judge' is not a reward model"),
        (["poe_rm", {"ppo": {"reward": "poe"}}], "Did you mean poe_rm"),
    ],
)
def test_a_reward_that_the_suite_does_not_train_is_told(methods: list[Any], message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        plan(methods=methods)


def test_a_judge_is_no_reward_unless_the_suite_says_so() -> None:
    same = {"method": "rm", "data": "train.jsonl"}
    rows = replace(OUTSIDE, judges=(OUTSIDE.train,))
    with pytest.raises(SuiteError, match="its reward rm is the judge itself"):
        plan(rows, methods=["rm", "ppo"], judge=same)
    plan(rows, methods=["rm", "dpo"], judge=same)
    plan(rows, methods=["rm", "ppo"], judge={**same, "seed": 1})
    allowed = plan(rows, methods=["rm", "ppo"], judge={**same, "allow_judge_as_reward": True})
    assert by_id(allowed)["rm"].adapter == allowed.judges[0].adapter


def test_gold_as_the_judge_is_no_reward_either() -> None:
    online = ["rm", {"ppo": {"reward": "gold"}}]
    plan(methods=online)  # the gold judge's verdict is always shown; no one called it the judge
    with pytest.raises(SuiteError, match=r"its reward gold is the judge itself \(gold\)"):
        plan(replace(OUTSIDE, judges=(None,)), methods=online, judge="gold")
    plan(replace(OUTSIDE, judges=(None,)), methods=online, judge={"method": "gold", "allow_judge_as_reward": True})


def test_no_judge_of_several_may_be_the_reward() -> None:
    judges = [{"method": "rm", "data": "other.jsonl"}, {"method": "rm", "data": "train.jsonl"}]
    with pytest.raises(SuiteError, match="its reward rm is the judge itself"):
        plan(replace(OUTSIDE, judges=("other", OUTSIDE.train)), methods=["rm", "ppo"], judge=judges)


# -- several judges ----------------------------------------------------------------------------------------------------


def test_each_judge_has_its_cells_rows_and_scores() -> None:
    judges = [
        {"method": "rm", "data": "judge.jsonl", "ensemble": {"size": 2}},
        {"model": "some/model"},
        {"method": "poe_rm", "data": "other.jsonl"},
        "gold",
    ]
    made = plan(replace(OUTSIDE, judges=("judge rows", "commit", "other rows", None)), judge=judges)
    assert [judge.name for judge in made.panel] == ["2 × rm, mean", "some/model", "poe_rm", "gold"]
    assert [str(cell.id) for cell in made.judges] == ["judge#0", "judge#1", "judge2", "judge3"]
    trained_on = [cell.adapter and cell.adapter.table for cell in made.judges]
    assert trained_on == [made.tables["judge"], made.tables["judge"], None, made.tables["judge3"]]
    assert all(cell.is_judge for cell in made.judges)
    assert {cell.algorithm for cell in made.judges} == {"judge"}
    assert {cell.kind for cell in made.judges} == {"reward"}
    assert set(made.tables) == {"train", "val", "judge", "judge3"}
    overlaps = [judge.overlap and judge.overlap.needs() for judge in made.panel]
    train = made.tables["train"]
    assert overlaps == [(made.tables["judge"], train), None, (made.tables["judge3"], train), None]
    for cell in (made.base, *made.cells):
        judged = [scores.judge_cell for scores in cell.all(Judge)]
        assert judged == ([] if cell.kind == "reward" else [judge.id for judge in made.judges])
        assert len(set(cell.all(Judge))) == len(judged)
    other = plan(replace(OUTSIDE, judges=("judge rows", "another commit", "other rows", None)), judge=judges)
    pairs = zip(made.base.all(Judge), other.base.all(Judge), strict=True)
    assert {str(one.judge_cell) for one, another in pairs if one != another} == {"judge2"}
    assert other.judges[2].the(Audit) != made.judges[2].the(Audit)
    assert other.judges[3].the(Audit) == made.judges[3].the(Audit)


def test_a_model_that_is_loaded_twice_scores_once() -> None:
    judges = [{"model": "some/model"}, {"model": "another/name"}]
    made = plan(replace(OUTSIDE, judges=("commit", "commit")), judge=judges)
    first, second = made.base.all(Judge)
    assert first == second
    assert [str(first.judge_cell), str(second.judge_cell)] == ["judge", "judge2"]
    assert sum(isinstance(stage, Judge) for stage in made.stages) == 4, "one for the base and each policy"


def test_without_audited_pairs_nothing_is_audited() -> None:
    assert all(cell.the(Audit) is None for cell in every_cell(plan(audit={"pairs": 0})))


# -- trials ------------------------------------------------------------------------------------------------------------


@dataclass
class Stored:
    """A `Known` of what a test says is stored.

    Attributes:
        facts_of: a stored stage → its facts.
        failed: stages that failed for good.
        kept: the trial that any choice keeps.
        everywhere: whether every stage is stored.
    """

    facts_of: dict[AnyStage, Mapping[str, Any]] = field(default_factory=dict)
    failed: set[AnyStage] = field(default_factory=set)
    kept: int = 1
    everywhere: bool = False

    def facts(self, stage: AnyStage) -> Mapping[str, Any] | None:
        return {"kept": self.kept} if self.everywhere else self.facts_of.get(stage)

    def failure(self, stage: AnyStage) -> Failure | None:
        return Failure("a stage", "no luck", True, "") if stage in self.failed else None

    def make(self, stages: Iterable[AnyStage]) -> None:
        """Store stages with what they need, as far as nothing failed."""
        for stage in closure_of(stages):
            if not self.failed & set(closure_of([stage])):
                self.facts_of[stage] = {"kept": self.kept}


def trial_stages(made: Graph) -> set[AnyStage]:
    """All that trials alone need, their rows included."""
    cells = [cell for cell in (made.trial_base, *made.trials) if cell is not None]
    found = {*made.held_out.values(), *(stage for cell in cells for stage in cell.stages)}
    return set(closure_of(found)) - set(made.tables.values())


def cell_stages(made: Graph) -> set[AnyStage]:
    """All that the cells need."""
    return set(closure_of(stage for cell in every_cell(made) for stage in cell.stages))


def test_without_tune_there_are_no_trials() -> None:
    made = plan()
    assert (dict(made.searches), made.held_out) == ({}, {})
    assert made.trials == ()
    assert made.trial_base is None


def test_every_method_has_its_trials_with_one_seed() -> None:
    made = plan(tune={"trials": 3}, seeds=[4, 5])
    assert {str(name): [str(cell.id) for cell in search.cells] for name, search in made.searches.items()} == {
        name: [f"{name} trial {number}" for number in range(3)] for name in ("rm", "dpo", "kto", "simpo")
    }
    assert {cell.seed for cell in made.trials} == {4}
    assert made.trial_base is not None
    assert all(cell.answers is None and cell.the(Audit) is None for cell in (made.trial_base, *made.trials))
    assert all(cell.adapter and cell.adapter.table == made.held_out["train"] for cell in made.trials)
    assert all(cell.validation and made.held_out["val"] in cell.validation.needs() for cell in made.trials)
    given = {name.partition("#")[0] for name in names(seeds=[4, 5])}
    assert set(map(str, made.searches)) == given


def test_trials_share_no_artefact_with_the_cells_nor_with_each_other() -> None:
    made = plan(tune={})
    assert not trial_stages(made) & cell_stages(made)
    assert len({cell.adapter for cell in made.trials}) == len(made.trials) == 16


def test_tune_changes_no_cell() -> None:
    """Where nothing is known yet, the given parameters stand in."""
    made = plan(tune={})
    assert made.base == plan().base
    assert all(cell.waiting for cell in made.cells)
    assert tuple(replace(cell, waiting=None) for cell in made.cells) == plan().cells
    assert set(made.stages) - trial_stages(made) == set(plan().stages)


@pytest.mark.parametrize("tune", [{"seed": 1}, {"holdout": 0.5}])
def test_other_cut_changes_every_trial(tune: Mapping[str, Any]) -> None:
    assert not trial_stages(plan(tune=tune)) & trial_stages(plan(tune={}))


@pytest.mark.parametrize("outside", [replace(OUTSIDE, train="other"), replace(OUTSIDE, val="other")])
def test_other_rows_change_the_cut(outside: Outside) -> None:
    assert set(plan(outside, tune={}).held_out.values()).isdisjoint(plan(tune={}).held_out.values())


def test_both_parts_of_the_cut_are_tables_of_their_own() -> None:
    held_out = plan(tune={}).held_out
    assert list(held_out) == ["train", "val"]
    assert held_out["train"] != held_out["val"]
    assert {table.kind for table in held_out.values()} == {"tokens"}


def test_how_settings_are_sought_changes_no_cut() -> None:
    assert plan(tune={"trials": 9, "search": "grid"}).held_out == plan(tune={}).held_out


def test_more_trials_keep_the_earlier_ones() -> None:
    assert trial_stages(plan(tune={})) < trial_stages(plan(tune={"trials": 9}))


def test_values_that_tune_searches_tell_no_cells_apart() -> None:
    found = plan(methods=[{"kto": {"desirable_weight": [1, 2], "beta": 0.3}}], tune={}).searches
    assert list(map(str, found)) == ["kto[desirable_weight=1.0]", "kto[desirable_weight=2.0]"]
    assert [search.cells[0].parameters["beta"] for search in found.values()] == [0.3, 0.3]


def test_trials_of_an_online_method_learn_from_the_rewards_first_trial() -> None:
    made = plan(methods=["rloo", "rm"], tune={"trials": 2})
    assert list(map(str, made.searches)) == ["rloo", "rm"]
    assert [cell.reward for cell in made.searches[CellId("rloo")].cells] == 2 * [made.searches[CellId("rm")].cells[0]]


def test_a_method_without_training_has_no_trials_and_waits_for_those_of_its_reward() -> None:
    made = plan(
        methods=["rm", "poe_rm", {"best_of_n": {"n": 2, "reward": ["rm", "poe_rm"]}}], tune={"methods": {"rm": None}}
    )
    assert list(map(str, made.searches)) == ["rm"]
    waiting = {str(cell.id): cell.waiting for cell in made.cells}
    missing = "not tuned: rm trial 0: train: not stored"
    assert waiting == {"rm": missing, "poe_rm": None, "best_of_n[reward=rm]": missing, "best_of_n[reward=poe_rm]": None}
    assert plan(methods=["rm", "best_of_n"], tune={}).searches[CellId("best_of_n")].cells == ()


SWEEP = {"rm": {"learning_rate": [1e-4, 1e-3], "batch_size": [8, 16]}}


def test_listed_values_are_tried_in_all_combinations() -> None:
    made = plan(methods=[{"rm": {"centering": 0.0}}, "dpo"], tune={"methods": SWEEP, "choose_by": "loss"})
    tried = [(cell.learning_rate, cell.settings, cell.parameters) for cell in made.searches[CellId("rm")].cells]
    wanted = [(1e-4, 8), (1e-4, 16), (1e-3, 8), (1e-3, 16)]
    assert tried == [(rate, {"batch_size": size}, {"centering": 0.0}) for rate, size in wanted]
    assert by_id(made)["dpo"].waiting is None


def test_a_sweep_of_a_method_that_the_suite_has_not_is_left_out() -> None:
    assert plan(methods=["dpo"], tune={"methods": SWEEP}).searches == {}


@pytest.mark.parametrize(
    ("tune", "said"),
    [
        ({"methods": {"mr": None}}, "tune.methods: no method 'mr'. Did you mean"),
        ({"choose_by": "loss"}, "tune.choose_by: loss is of reward models, and dpo trains a policy"),
        ({"methods": {"rm": {"beta": [1]}}}, "trials of rm"),
    ],
)
def test_a_search_that_cannot_be_made_is_refused(tune: dict[str, Any], said: str) -> None:
    with pytest.raises(SuiteError, match=said):
        plan(methods=["rm", "dpo"], tune=tune)


# -- test pairs --------------------------------------------------------------------------------------------------------


WITH_TEST = {"train": "train.jsonl", "val": "val.jsonl", "test": "test.jsonl"}


def test_policies_and_the_base_are_measured_on_test_pairs_and_reward_models_are_not() -> None:
    made = plan(methods=["rm", "dpo", "best_of_n"], data=WITH_TEST)
    assert made.tables["test"] not in (made.tables["train"], made.tables["val"])
    for cell in (made.base, by_id(made)["dpo"]):
        assert cell.test is not None
        assert cell.validation is not None
        assert (cell.test.table, cell.validation.table) == (made.tables["test"], made.tables["val"])  # type: ignore[attr-defined]
    assert [by_id(made)[name].test for name in ("rm", "best_of_n")] == [None, None]
    without = plan(methods=["rm", "dpo", "best_of_n"])
    assert set(without.stages) < set(made.stages)
    assert all(cell.test is None for cell in without.shown)


def test_trials_know_nothing_of_test_pairs() -> None:
    made = plan(methods=["dpo"], data=WITH_TEST, tune={})
    assert made.tables["test"] not in closure_of(stage for cell in made.trials for stage in cell.stages)


# -- growing -----------------------------------------------------------------------------------------------------------


def test_a_tuned_suite_grows_until_nothing_new_is_asked() -> None:
    """First the trials, then the choice among them, then the cells."""
    known, tune = Stored(kept=2), {"trials": 3}
    first = plan(methods=["dpo"], known=known, tune=tune)
    search = first.searches[CellId("dpo")]
    assert (search.choice, search.kept) == (None, None)
    assert search.open == search.cells
    assert search.missing == "dpo trial 0: train: not stored"
    assert first.cells[0].waiting == "not tuned: dpo trial 0: train: not stored"

    known.make(stage for cell in first.trials for stage in cell.stages)
    second = plan(methods=["dpo"], known=known, tune=tune)
    search = second.searches[CellId("dpo")]
    assert search.choice is not None
    assert search.open == ()
    assert search.choice.measured == tuple(cell.validation for cell in search.cells)
    assert second.trial_base is not None
    assert search.choice.base == second.trial_base.validation
    assert set(second.stages) - set(first.stages) == {search.choice}
    assert search.kept is None
    assert second.cells[0].waiting == "not tuned: dpo: choice among trials: not stored"

    known.make([search.choice])
    third = plan(methods=["dpo"], known=known, tune=tune)
    (cell,) = third.cells
    assert third.searches[CellId("dpo")].kept == 2
    assert cell.waiting is None
    assert (
        cell.all_parameters == third.searches[CellId("dpo")].cells[2].all_parameters != second.cells[0].all_parameters
    )

    known.make(third.stages)
    assert plan(methods=["dpo"], known=known, tune=tune) == third
    keys = [made.key for made in (first, second, third, plan(methods=["dpo"], known=known, tune=tune))]
    assert len(set(keys)) == 3
    assert keys[3] == keys[2]


def test_a_choice_for_the_given_setting_asks_for_nothing_new_but_no_cell_waits() -> None:
    """The key alone does not tell that the graph has grown."""
    known = Stored(kept=0)
    known.make(stage for cell in plan(tune={}).trials for stage in cell.stages)
    chosen = plan(known=known, tune={})
    known.make(chosen.stages)
    settled = plan(known=known, tune={})
    assert settled.key == chosen.key
    assert all(cell.waiting for cell in chosen.cells)
    assert not any(cell.waiting for cell in settled.cells)


def test_each_method_waits_for_its_own_trials() -> None:
    known, tune = Stored(), {"trials": 2}
    dpo = plan(tune=tune).searches[CellId("dpo")]
    known.make(stage for cell in dpo.cells for stage in cell.stages)
    choice = plan(known=known, tune=tune).searches[CellId("dpo")].choice
    assert choice is not None
    known.make([choice])
    made = plan(known=known, tune=tune)
    assert {str(cell.id): cell.waiting is None for cell in made.cells} == {
        "rm": False,
        "dpo": True,
        "kto": False,
        "simpo": False,
    }


def test_tuned_parameters_take_the_place_of_the_given_ones() -> None:
    known, tune = Stored(kept=1), {"trials": 2}
    made = plan(known=known, seeds=[0, 1], tune=tune)
    known.make(stage for cell in made.trials for stage in cell.stages)
    known.make(plan(known=known, seeds=[0, 1], tune=tune).stages)
    made = plan(known=known, seeds=[0, 1], tune=tune)
    found = {str(name): search.cells[1].all_parameters for name, search in made.searches.items()}
    assert found["dpo"] != plan().cells[1].all_parameters
    by_hand = plan(seeds=[0, 1], methods=[{name: found[name]} for name in ("rm", "dpo", "kto", "simpo")])
    assert made.cells == by_hand.cells
    assert made.base == by_hand.base
    assert [cell.all_parameters for cell in made.cells if cell.algorithm == "dpo"] == [found["dpo"]] * 2


def test_a_failed_trial_has_ended() -> None:
    known, tune = Stored(), {"trials": 3}
    trials = plan(methods=["dpo"], tune=tune).searches[CellId("dpo")].cells
    assert trials[1].adapter is not None
    known.failed.add(trials[1].adapter)
    known.make(stage for cell in trials for stage in cell.stages)
    choice = plan(methods=["dpo"], known=known, tune=tune).searches[CellId("dpo")].choice
    assert choice is not None
    assert choice.measured == (trials[0].validation, None, trials[2].validation)
    assert trials[1].validation not in choice.needs()
    others = Stored({**known.facts_of})
    others.make(stage for cell in trials for stage in cell.stages)
    assert plan(methods=["dpo"], known=others, tune=tune).searches[CellId("dpo")].choice != choice


def test_a_choice_depends_on_which_trials_failed() -> None:
    known = Stored()
    known.make(stage for cell in plan(tune={}).trials for stage in cell.stages)
    choice = plan(known=known, tune={}).searches[CellId("dpo")].choice
    assert choice is not None
    one = choice.measured[0]
    assert replace(choice, measured=(one, None)) != replace(choice, measured=(None, one))
    assert replace(choice, measured=(one, None)) != replace(choice, measured=(one,))


def test_a_failure_of_what_trials_share_ends_them_all() -> None:
    known, tune = Stored(), {"trials": 2}
    trials = plan(methods=["dpo"], tune=tune).searches[CellId("dpo")].cells
    reference = part_of(trials[0], "reference")
    assert reference is not None
    known.failed.add(reference)
    known.make(stage for cell in trials for stage in cell.stages)
    made = plan(methods=["dpo"], known=known, tune=tune)
    choice = made.searches[CellId("dpo")].choice
    assert choice is not None
    assert choice.measured == (None, None)
    assert choice.base is None
    assert choice.needs() == (made.held_out["val"],)


def test_an_open_trial_is_waited_for_beside_a_failed_one() -> None:
    known, tune = Stored(), {"trials": 2}
    trials = plan(methods=["dpo"], tune=tune).searches[CellId("dpo")].cells
    assert trials[0].adapter is not None
    known.failed.add(trials[0].adapter)
    search = plan(methods=["dpo"], known=known, tune=tune).searches[CellId("dpo")]
    assert search.choice is None
    assert search.missing == "dpo trial 1: train: not stored"
    assert search.open == (trials[1],), "the failed one is not tried again"


def test_reward_models_are_chosen_without_the_base() -> None:
    known = Stored()
    made = plan(methods=["rm"], tune={}, known=known)
    known.make(stage for cell in made.trials for stage in cell.stages)
    choice = plan(methods=["rm"], known=known, tune={}).searches[CellId("rm")].choice
    assert choice is not None
    assert choice.scalar
    assert choice.base is None
    assert made.trial_base is not None
    assert made.trial_base.validation not in made.stages
    assert made.trial_base.validation in plan(methods=["rm", "dpo"], tune={}).stages
