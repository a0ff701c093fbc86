"""Suite files: what is read, what is refused and how it is told."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from align_bench.errors import SuiteError
from align_bench.suite.load import builtin_folder, find_suite, json_schema, load_suite, packaged_suites
from align_bench.suite.models import GoldJudge, LoadedJudge, Suite, TrainedJudge, judge_names

MINIMAL = """
name: mine
base: some/base
data: {train: train.jsonl, val: val.jsonl}
methods: [dpo]
"""

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in an empty folder, with the variables that packaged suites ask for."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in needed_variables():
        monkeypatch.setenv(name, str(tmp_path))
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a suite file from text, by default the minimal one with `more` after it."""

    def written(text: str | None = None, *, more: str = "", name: str = "mine.yaml") -> Path:
        path = tmp_path / "suites" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(MINIMAL + more if text is None else text, encoding="utf-8")
        return path

    return written


def trained_judge(suite: Suite) -> TrainedJudge:
    """The suite's main judge, which it trains."""
    judge = suite.judge[0]
    assert isinstance(judge, TrainedJudge)
    return judge


def needed_variables() -> set[str]:
    """Environment variables without a default in any packaged suite."""
    return {
        name
        for path in packaged_suites().values()
        for name in re.findall(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", path.read_text(encoding="utf-8"))
    }


def refusal(path: Path | str, *overrides: str) -> str:
    """What is said when a suite is refused."""
    with pytest.raises(SuiteError) as caught:
        load_suite(str(path), overrides)
    return str(caught.value)


# -- packaged suites ---------------------------------------------------------------------------------------------------


OWN = ("base=some/base", "data.train=train.jsonl", "data.val=val.jsonl")  # what `real` leaves to the user


@pytest.mark.parametrize("name", packaged_suites())
def test_packaged_suite_loads(name: str) -> None:
    suite = load_suite(name, OWN if name == "real" else ())
    assert suite.name == name
    assert suite.methods


def test_real_leaves_base_and_data_to_the_user(write: Write) -> None:
    said = refusal("real")
    assert "base: missing" in said
    assert "data: missing" in said
    assert "judge" not in said
    assert "→ write a suite of your own that says `extends: real`, base and data; or add --set base=…" in said
    own = write("extends: real\nname: mine\nbase: a/b\ndata: {train: train.jsonl, val: val.jsonl}\n")
    suite = load_suite(str(own))
    assert (suite.precision, suite.train.max_length) == ("auto", 1024)
    assert (suite.generate.max_new_tokens, suite.generate.temperature, suite.generate.samples) == (256, 0.0, 1)
    assert all(method.grid == {} for method in suite.methods), "each method's default learning rate"
    assert suite == load_suite("real", ["name=mine", "base=a/b", *OWN[1:]])


def test_a_judge_is_trained_on_prompts_that_methods_do_not_see(write: Write) -> None:
    data = "data: {train: {path: train.jsonl, rows: 50, columns: {chosen: good}}, val: val.jsonl}\n"
    path = write(f"extends: real\nname: mine\nbase: a/b\n{data}")
    suite = load_suite(str(path))
    judge = trained_judge(suite)
    assert (judge.data.prompts, suite.data.train.prompts) == ((0.0, 0.2), (0.2, 1.0))
    assert judge.data.model_copy(update={"prompts": (0.2, 1.0)}) == suite.data.train
    assert suite.data.val.prompts is None
    several = load_suite(str(path), ["judge=[{holdout: 0.1}, {holdout: 0.3, name: wide}, gold]"])
    parts = [judge.data.prompts for judge in several.judge if isinstance(judge, TrainedJudge)]
    assert parts == [(0.0, 0.1), (0.0, 0.3)]
    assert several.data.train.prompts == (0.3, 1.0)
    within = load_suite(str(path), ["data.train.prompts=[0.5, 1.0]"])
    assert (trained_judge(within).data.prompts, within.data.train.prompts) == ((0.5, 0.6), (0.6, 1.0))


def test_own_rows_of_a_judge_take_the_place_of_held_out_ones(write: Write) -> None:
    text = "extends: real\nname: mine\nbase: a/b\ndata: {train: train.jsonl, val: val.jsonl}\n"
    own = write(f"{text}judge: {{data: j.jsonl}}\n")
    for suite in (load_suite(str(own)), load_suite(str(write(text)), ["judge.data=j.jsonl"])):
        assert (trained_judge(suite).data.path, trained_judge(suite).holdout) == ("j.jsonl", None)
        assert suite.data.train.prompts is None
    back = load_suite(str(write(f"{text}judge: {{data: j.jsonl}}\n")), ["judge.holdout=0.5"])
    assert (trained_judge(back).data.path, trained_judge(back).data.prompts) == ("train.jsonl", (0.0, 0.5))
    both = write(f"{text}judge: {{data: j.jsonl, holdout: 0.5}}\n")
    assert "judge: got data and holdout, expected one of them" in refusal(both)
    assert "judge.holdout: got 1" in refusal(write(text), "judge.holdout=1")
    assert "data.val.prompts: got [0.5, 0.5]" in refusal(write(text), "data.val.prompts=[0.5, 0.5]")


def test_assignment_is_packaged_and_needs_no_network() -> None:
    suite = load_suite("assignment")
    names = ["rm", "poe_rm", "robust_rm", "dpo", "kto", "simpo", "orpo", "ppo"]
    assert [method.name for method in suite.methods] == names
    assert suite.data.test is not None
    files = [suite.data.train, suite.data.val, suite.data.test, trained_judge(suite).data]
    paths = [suite.base, *(path for file in files for path in file.paths)]
    assert all(path.startswith("embedded/") for path in paths)


@pytest.mark.parametrize(
    "given", ["assignment", "assignment.yaml", "suites/assignment.yaml", "./suites/assignment.yaml"]
)
def test_packaged_suite_is_found_from_an_empty_folder(given: str) -> None:
    assert find_suite(given) == packaged_suites()["assignment"]


def test_own_file_goes_before_the_packaged_one(elsewhere: Path) -> None:
    own = elsewhere / "suites" / "assignment.yaml"
    own.parent.mkdir()
    own.write_text(MINIMAL, encoding="utf-8")
    assert find_suite("suites/assignment.yaml") == own
    assert load_suite("suites/assignment.yaml").name == "mine"


@pytest.mark.parametrize("given", ["other/assignment.yaml", "suites/assignment.txt"])
def test_packaged_suite_does_not_stand_in_for_another_path(given: str) -> None:
    assert f"no suite {given!r}: not a file" in refusal(given)


def test_unknown_suite_suggests_the_nearest() -> None:
    said = refusal("asignment")
    assert "no suite 'asignment'" in said
    assert "Did you mean assignment" in said


# -- what is read ------------------------------------------------------------------------------------------------------


def test_defaults_fill_what_is_not_said(write: Write) -> None:
    suite = load_suite(str(write()))
    assert (suite.precision, suite.seeds, suite.plugins, suite.judge) == ("auto", [0], [], ())
    assert (suite.train.epochs, suite.train.batch_size, suite.lora.r) == (1, 32, 16)
    assert suite.data.train.too_long == "truncate"


def test_tune_is_asked_for(write: Write) -> None:
    assert load_suite(str(write())).tune is None
    tune = load_suite(str(write()), ["tune.trials=8"]).tune
    assert tune is not None
    assert (tune.trials, tune.search, tune.seed, tune.holdout) == (8, "random", 0, 0.2)
    assert load_suite(str(write(more="tune: {}\n"))).tune == tune.model_copy(update={"trials": 4})


def test_suite_is_frozen(write: Write) -> None:
    suite = load_suite(str(write()))
    with pytest.raises(ValidationError, match="frozen"):
        suite.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("written", ["5e-4", "5E-4", "5.e-4", "0.0005", "5.0e-4", "+5e-4"])
def test_scientific_notation_is_a_number(write: Write, written: str) -> None:
    suite = load_suite(
        str(write(more=f"train: {{weight_decay: {written}}}\njudge: null\n")), [f"lora.dropout={written}"]
    )
    assert suite.train.weight_decay == 5e-4
    assert suite.lora.dropout == 5e-4
    grid = load_suite(str(write()), [f"methods=[dpo: {{learning_rate: {written}}}]"]).methods[0].grid
    assert grid == {"learning_rate": [5e-4]}


@pytest.mark.parametrize("written", ["5e", "e-4", "v5e-4", "'5e-4'", "5e-4x"])
def test_what_only_resembles_a_number_stays_text(write: Write, written: str) -> None:
    grid = load_suite(str(write()), [f"methods=[dpo: {{mode: {written}}}]"]).methods[0].grid
    assert grid == {"mode": [written.strip("'")]}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("dpo", ("dpo", {})),
        ("dpo:", ("dpo", {})),
        ("dpo: {}", ("dpo", {})),
        ("dpo: {beta: 0.2}", ("dpo", {"beta": [0.2]})),
        ("dpo: {beta: [0.1, 0.2], learning_rate: 1e-5}", ("dpo", {"beta": [0.1, 0.2], "learning_rate": [1e-5]})),
        ("dpo: {mode: mean}", ("dpo", {"mode": ["mean"]})),
    ],
)
def test_forms_of_a_method(write: Write, written: str, read: tuple[str, dict[str, Any]]) -> None:
    (method,) = load_suite(str(write(MINIMAL.replace("[dpo]", f"\n  - {written}")))).methods
    assert (method.name, method.grid) == read


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("dpo: {beta: []}", "dpo.beta is an empty list"),
        ("dpo: 0.1", "parameters of dpo must be a mapping"),
        ("dpo: [0.1]", "parameters of dpo must be a mapping"),
        ("{dpo: {}, kto: {}}", "expected a method's name, or"),
        ("[dpo]", "expected a method's name, or"),
        ("3", "expected a method's name, or"),
        ("null", "expected a method's name, or"),
    ],
)
def test_malformed_method_is_refused(write: Write, written: str, said: str) -> None:
    path = write(MINIMAL.replace("[dpo]", f"\n  - kto\n  - {written}"))
    answer = refusal(path)
    assert said in answer
    assert "methods.1" in answer, "the entry's number is told"
    assert str(path) in answer


def test_data_entry_is_a_path_or_a_mapping(write: Write) -> None:
    suite = load_suite(str(write()), ["data.val={path: v.jsonl, rows: 5, columns: {question: q}}"])
    assert suite.data.train.path == "train.jsonl"
    assert (suite.data.val.path, suite.data.val.rows, suite.data.val.columns) == ("v.jsonl", 5, {"question": "q"})


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_unknown_key_suggests_the_nearest(write: Write) -> None:
    path = write(more="seedz: [1]\n")
    said = refusal(path)
    assert "seedz: unknown key. Did you mean seeds" in said
    assert str(path) in said
    assert "extends" in said, "the key that only a file has is among the known ones"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("train: {epocs: 2}", "train.epocs: unknown key. Did you mean epochs"),
        ("lora: {rank: 8}", "lora.rank: unknown key"),
        ("generate: {temprature: 1}", "generate.temprature: unknown key. Did you mean temperature"),
        ("judge: {data: x.jsonl, metod: rm}", "judge.metod: unknown key. Did you mean method"),
        ("judge: {data: {path: x.jsonl, row: 3}}", "judge.data.row: unknown key. Did you mean rows"),
        ("judge: [gold, {data: x.jsonl, metod: rm}]", "judge.1.metod: unknown key. Did you mean method"),
        ("judge: {model: a/b, revison: c}", "judge.revison: unknown key. Did you mean revision"),
        (
            "train: {learning_rate: 5.0e-7}",
            "train.learning_rate: unknown key. It is each method's own: write methods: [{dpo: {learning_rate: 5e-07}}]",
        ),
        ("beta: 0.2", "beta: unknown key. It is each method's own: write methods: [{dpo: {beta: 0.2}}]"),
    ],
)
def test_unknown_nested_key_suggests_the_nearest(write: Write, more: str, said: str) -> None:
    answer = refusal(write(more=more))
    assert said in answer
    assert "base" not in answer.partition("Known keys: ")[2].split(", "), "only the keys of that place are listed"


def test_unknown_key_of_a_data_entry(write: Write) -> None:
    assert "data.train.colums: unknown key. Did you mean columns" in refusal(write(), "data.train.colums={a: b}")
    assert "data.tset: unknown key. Did you mean test" in refusal(write(), "data.tset=x.jsonl")


OWN_BOUND = "judge: org/judge\ntrain: {max_length: 512}\ngenerate: {max_new_tokens: 64}"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("seeds: [5]", True),
        ("data: {test: {path: embedded/planted, split: test, rows: 5}}", True),
        ("methods: [dpo]", False),
        (f"base: some/model\n{OWN_BOUND}", False),
        (f"data: {{val: own.parquet}}\n{OWN_BOUND}", False),
    ],
)
def test_what_is_about_base_rows_and_methods_is_not_inherited_with_others(write: Write, said: str, kept: bool) -> None:
    suite = load_suite(str(write(f"extends: assignment\nname: mine\n{said}\n")))
    assert (suite.data.test is not None, suite.tune is not None, suite.report.course_figures) == (kept, kept, kept)


def test_whom_methods_are_tested_against_belongs_to_the_methods(write: Write) -> None:
    write(f"{MINIMAL}report: {{against: [dpo], seed_noise: 0.2}}\n", name="below.yaml")
    assert load_suite(str(write("extends: below.yaml\nname: mine\nseeds: [1]\n"))).report.against == ["dpo"]
    other = load_suite(str(write("extends: below.yaml\nname: mine\nmethods: [kto]\n"))).report
    assert (other.against, other.seed_noise) == (None, 0.2)
    said = refusal(write(f"{MINIMAL}report: {{against: [dpo, sft]}}\n"))
    assert "report.against: got 'sft', expected methods of this suite: dpo" in said


@pytest.mark.parametrize("given", ["[0.5, 0.5]", "[0.9, 0.1]", "[0.5]", "[0.5, 1.5]"])
def test_a_range_of_prompts_rises(write: Write, given: str) -> None:
    assert "data.train.prompts" in refusal(write(), f"data.train.prompts={given}")


@pytest.mark.parametrize("key", ["name", "base", "data", "methods"])
def test_missing_key_is_named(write: Write, key: str) -> None:
    path = write("\n".join(line for line in MINIMAL.splitlines() if not line.startswith(key)))
    said = refusal(path)
    assert f"{key}: missing" in said
    assert str(path) in said


def test_missing_nested_key_is_named(write: Write) -> None:
    assert "judge.data: missing" in refusal(write(more="judge: {method: rm}"))
    assert "data.val: missing" in refusal(write(MINIMAL.replace(", val: val.jsonl", "")))


@pytest.mark.parametrize(
    ("override", "where"),
    [
        ("train.epochs=many", "train.epochs: got 'many'"),
        ("train.epochs=1.5", "train.epochs: got 1.5"),
        ("train.epochs=0", "train.epochs: got 0"),
        ("train.warmup=1", "train.warmup: got 1"),
        ("train.schedule=step", "train.schedule: got 'step'"),
        ("precision=int8", "precision: got 'int8'"),
        ("seeds=3", "seeds: got 3"),
        ("seeds=[]", "seeds: got []"),
        ("seeds=[a]", "seeds.0: got 'a'"),
        ("methods=[]", "methods: got []"),
        ("methods=dpo", "methods: got 'dpo'"),
        ("data.train.rows=0", "data.train.rows: got 0"),
        ("data.train=3", "data.train: got 3"),
        ("data.train.too_long=cut", "data.train.too_long: got 'cut'"),
        ("lora.dropout=1", "lora.dropout: got 1"),
        ("train=fast", "train: got 'fast'"),
        ("base=3", "base: got 3"),
        ("base=null", "base: got None"),
        ("generate.temperature=-1", "generate.temperature: got -1"),
        ("plugins=mine.py", "plugins: got 'mine.py'"),
        ("tune.trials=1", "tune.trials: got 1"),
        ("tune.search=bayes", "tune.search: got 'bayes'"),
        ("tune.holdout=1", "tune.holdout: got 1"),
        ("tune=4", "tune: got 4"),
    ],
)
def test_wrong_type_or_value_is_named(write: Write, override: str, where: str) -> None:
    said = refusal(write(), override)
    assert where in said
    assert "pydantic" not in said
    assert "http" not in said


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b"])
def test_name_must_do_as_a_folder(write: Write, name: str) -> None:
    assert f"name: got {name!r}" in refusal(write(), f"name={name!r}")


@pytest.mark.parametrize("number", [".inf", ".nan", "-.inf"])
@pytest.mark.parametrize("key", ["lora.alpha", "train.max_grad_norm", "train.checkpoint_minutes"])
def test_numbers_are_finite(write: Write, key: str, number: str) -> None:
    assert f"{key}: got" in refusal(write(), f"{key}={number}")


def test_every_mistake_is_told_at_once(write: Write) -> None:
    said = refusal(write(more="seedz: [1]\n"), "train.epochs=0", "lora.r=x")
    assert all(where in said for where in ("seedz", "train.epochs", "lora.r"))


def test_several_samples_need_a_temperature(write: Write) -> None:
    assert "samples > 1 needs temperature > 0" in refusal(write(), "generate.samples=2", "generate.temperature=0")
    suite = load_suite(str(write()), ["generate.samples=2", "generate.temperature=0.7"])
    assert suite.generate.samples == 2


@pytest.mark.parametrize("temperature", ["1e-30", "9e-5"])
def test_a_temperature_is_large_enough_to_divide_by(write: Write, temperature: str) -> None:
    said = refusal(write(), f"generate.temperature={temperature}")
    assert "is too small to divide by; expected 0, which is greedy, or at least 0.0001" in said
    assert load_suite(str(write()), ["generate.temperature=1e-4"]).generate.temperature == 1e-4


def test_seeds_are_distinct(write: Write) -> None:
    assert "seeds must be distinct" in refusal(write(), "seeds=[0, 1, 0]")
    assert load_suite(str(write()), ["seeds=[2, 1]"]).seeds == [2, 1]


@pytest.mark.parametrize(
    "text",
    [MINIMAL + "name: again\n", MINIMAL + "train: {epochs: 1, epochs: 2}\n", MINIMAL.replace("train:", "val:")],
)
def test_key_may_occur_only_once(write: Write, text: str) -> None:
    path = write(text)
    said = refusal(path)
    assert "occurs twice" in said
    assert str(path) in said
    assert "line" in said


@pytest.mark.parametrize(
    "text",
    ["name: [unclosed", "a: b: c", "\tname: x", "name: &a x\nbase: *b", "--- a\n--- b", "base: {{ BASE }}", "%x"],
)
def test_what_is_not_yaml_is_told(write: Write, text: str) -> None:
    path = write(text)
    assert f"{path} is not valid YAML" in refusal(path)
    assert "<unicode string>" not in refusal(path)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epochs=-1", "train.epochs: got -1; expected a number greater than 0"),
        ("train.epochs=x", "train.epochs: got 'x'; expected a valid number"),
        ("train=3", "train: got 3; expected a mapping"),
        ("methods=dpo", "methods: got 'dpo'; expected a list"),
        ("methods=[]", "methods: got []; expected at least 1 item"),
        ("precision=fp8", "precision: got 'fp8'; expected 'nf4', 'bf16', 'fp32' or 'auto'"),
        ("name=../x", "name: got '../x'; expected text that matches "),
        ("seeds=[0, 0]", "seeds: got [0, 0]; seeds must be distinct"),
    ],
)
def test_what_was_expected_is_said_in_our_words(write: Write, override: str, said: str) -> None:
    assert said in refusal(write(), override)


@pytest.mark.parametrize(("text", "found"), [("", "nothing"), ("- dpo", "list"), ("dpo", "str"), ("3", "int")])
def test_what_is_not_a_mapping_is_told(write: Write, text: str, found: str) -> None:
    path = write(text)
    assert f"{path}: got {found}, expected a mapping" in refusal(path)


def test_what_is_not_text_is_told(write: Write) -> None:
    path = write()
    path.write_bytes(b"name: \xff\xfe")
    said = refusal(path)
    assert f"{path} cannot be read" in said or f"{path} is not valid YAML" in said


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.mkdir [made]",
        "!!python/object/new:os.mkdir [[made]]",
        "!!python/name:os.mkdir ''",
        "!!python/object:pathlib.Path {}",
    ],
)
def test_yaml_is_data_not_code(write: Write, elsewhere: Path, value: str) -> None:
    assert "not valid YAML" in refusal(write(more=f"plugins: {value}\n"))
    assert "not valid YAML" in refusal(write(), f"plugins={value}")
    assert not list(elsewhere.iterdir())


def test_keys_that_are_no_text_are_refused(write: Write) -> None:
    assert "1: got 1; Keys should be strings" in refusal(write(more="1: x\n"))


# -- extends -----------------------------------------------------------------------------------------------------------


def test_extends_a_packaged_suite_by_name(write: Write) -> None:
    suite = load_suite(str(write("extends: assignment\nname: mine\nseeds: [5]\n")))
    parent = load_suite("assignment")
    assert (suite.name, suite.seeds) == ("mine", [5])
    assert suite.model_copy(update={"name": parent.name, "seeds": parent.seeds}) == parent


def test_extends_a_file_beside_it(write: Write) -> None:
    write(name="parent.yaml", more="seeds: [7]\n")
    assert load_suite(str(write("extends: parent.yaml\nname: child\n", name="child.yaml"))).seeds == [7]


def test_extends_through_several_files(write: Write) -> None:
    write(name="a.yaml", more="seeds: [1]\nprecision: bf16\n")
    write("extends: a.yaml\nname: b\nseeds: [2]\n", name="b.yaml")
    suite = load_suite(str(write("extends: b.yaml\nname: c\n", name="c.yaml")))
    assert (suite.name, suite.seeds, suite.precision, suite.base) == ("c", [2], "bf16", "some/base")


def test_mappings_merge_and_the_rest_is_replaced(write: Write) -> None:
    write(
        name="parent.yaml",
        more="train: {epochs: 3, batch_size: 4}\nseeds: [1, 2]\njudge: {data: j.jsonl, parameters: {centering: 0.1}}\n",
    )
    child = write(
        "extends: parent.yaml\nname: child\ntrain: {epochs: 5}\nseeds: [3]\nmethods: [kto]\n"
        "judge: {data: j.jsonl, parameters: {learning_rate: 1e-4}}\ndata: {train: {path: t.jsonl, rows: 2}}\n",
        name="child.yaml",
    )
    suite = load_suite(str(child))
    assert (suite.train.epochs, suite.train.batch_size, suite.seeds) == (5, 4, [3])
    assert [method.name for method in suite.methods] == ["kto"]
    assert trained_judge(suite).parameters == {"centering": 0.1, "learning_rate": 1e-4}
    assert (suite.data.train.path, suite.data.train.rows, suite.data.val.path) == ("t.jsonl", 2, "val.jsonl")


def test_null_takes_away_what_the_parent_has(write: Write) -> None:
    assert load_suite(str(write("extends: assignment\nname: mine\njudge: null\n"))).judge == ()


CHOSEN = (
    "name: below\nbase: a/b\ndata: {train: t.jsonl, val: v.jsonl}\nmethods: [dpo]\n"
    "judge: {data: j.jsonl}\ntrain: {max_length: 300}\ngenerate: {max_new_tokens: 40, prompts: 9}\n"
)
BOUND = {
    "judge": "judge: {data: other.jsonl}\n",
    "train.max_length": "train: {max_length: 512}\n",
    "generate": "generate: {max_new_tokens: 60}\n",
}


@pytest.mark.parametrize("change", ["base: c/d\n", "data: {train: other.jsonl}\n", "data: {val: {path: w.jsonl}}\n"])
@pytest.mark.parametrize("key", BOUND)
def test_what_belongs_to_another_base_or_other_data_is_not_inherited(write: Write, key: str, change: str) -> None:
    below = write(CHOSEN, name="below.yaml")
    own = "".join(said for name, said in BOUND.items() if name != key)
    path = write(f"extends: below.yaml\nname: mine\n{change}{own}")
    changed = "base" if change.startswith("base") else f"data.{change[7:].partition(':')[0]}"
    said = refusal(path)
    assert f"{path}, line 3: {changed} is " in said
    line = {"judge": 5, "train.max_length": 6, "generate": 7}[key]
    assert f"\n  {key}: got " in said
    assert f", from {below}, line {line}\n" in said
    assert f"expected: your own {key}, since they depend on the base and on the data\n" in said, "no other key"
    assert f"→ write them into {path}, or write `extends: real`" in said
    assert load_suite(str(write(f"extends: below.yaml\nname: mine\n{change}{own}{BOUND[key]}"))).name == "mine"


def test_all_that_is_not_inherited_is_named_at_once(write: Write) -> None:
    write(CHOSEN, name="below.yaml")
    same = write("extends: below.yaml\nname: mine\ndata: {train: {path: t.jsonl, rows: 5}}\nseeds: [3]\n")
    assert load_suite(str(same)).train.max_length == 300, "the same file, or a part of it"
    said = refusal(same, "base=c/d")
    assert said.startswith("--set base: base is c/d, but these settings were made for a/b:")
    assert 'judge: got {"data": "j.jsonl"}' in said
    assert "train.max_length: got 300" in said
    assert "expected: your own judge, train.max_length, generate, since" in said
    assert "→ set them with --set" in said
    own = ["judge=null", "train.max_length=9", "generate.max_new_tokens=5"]
    assert load_suite(str(same), ["base=c/d", *own]).generate.prompts == 9


def test_parts_that_are_still_inherited_are_refused(write: Write) -> None:
    write(CHOSEN, name="below.yaml")
    path = write(
        "extends: below.yaml\nname: mine\ndata: {train: x.jsonl, val: y.jsonl}\njudge: {seed: 1}\n"
        "train: {max_length: 5}\ngenerate: {prompts: 3}\n"
    )
    assert "expected: your own judge.data, generate.max_new_tokens, since" in refusal(path)


def test_what_is_set_above_an_open_base_belongs_to_no_base(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("extends: real\nname: one\nbase: a/b\ndata: {train: t.jsonl, val: v.jsonl}\n", name="one.yaml")
    two = write("extends: one.yaml\nname: two\nbase: c/d\ndata: {train: x.jsonl}\n")
    assert load_suite(str(two)).train.max_length == 1024
    monkeypatch.setenv("MY_BASE", "a/b")
    write(CHOSEN.replace("a/b", "${MY_BASE}"), name="below.yaml")
    assert load_suite(str(write("extends: below.yaml\nname: mine\n")), ["base=a/b"]).base == "a/b"
    assert "base is c/d" in refusal(write("extends: below.yaml\nname: mine\nbase: c/d\n"))
    monkeypatch.delenv("MY_BASE")
    assert "made for ${MY_BASE}" in refusal(write("extends: below.yaml\nname: mine\nbase: c/d\n"))


@pytest.mark.parametrize("links", [("a",), ("b", "a"), ("b", "c", "a")])
def test_cycle_is_refused(write: Write, links: tuple[str, ...]) -> None:
    for name, parent in zip(("a", *links), links, strict=False):
        write(name=f"{name}.yaml", more=f"extends: {parent}.yaml\n")
    said = refusal(write(name="a.yaml", more=f"extends: {links[0]}.yaml\n"))
    assert "extends itself" in said
    assert "a.yaml" in said


def test_missing_parent_is_told_with_its_child(write: Write) -> None:
    child = write("extends: asignment\nname: mine\n")
    said = refusal(child)
    assert "no suite 'asignment'" in said
    assert "Did you mean assignment" in said
    assert str(child) in said


def test_mistake_in_a_parent_names_the_parent(write: Write) -> None:
    parent = write("name: [unclosed", name="parent.yaml")
    assert str(parent) in refusal(write("extends: parent.yaml\nname: child\n", name="child.yaml"))


# -- --set -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("precision=fp32", lambda suite: suite.precision == "fp32"),
        ("train.epochs=2", lambda suite: suite.train.epochs == 2),
        ("seeds=[0, 1, 2]", lambda suite: suite.seeds == [0, 1, 2]),
        ("data.train.rows=10", lambda suite: (suite.data.train.path, suite.data.train.rows) == ("train.jsonl", 10)),
        ("data.val.split=test", lambda suite: (suite.data.val.path, suite.data.val.split) == ("val.jsonl", "test")),
        ("judge={method: rm, data: x.jsonl}", lambda suite: trained_judge(suite).data.path == "x.jsonl"),
        ("judge.data=x.jsonl", lambda suite: suite.judge[0].method == "rm"),
        ("methods=[kto, dpo: {beta: [0.1, 0.5]}]", lambda suite: suite.methods[-1].grid == {"beta": [0.1, 0.5]}),
        ("base=a=b", lambda suite: suite.base == "a=b"),
        ("lora.target_modules=[q_proj]", lambda suite: suite.lora.target_modules == ["q_proj"]),
    ],
)
def test_set_overrides_one_key(write: Write, override: str, read: Callable[[Suite], bool]) -> None:
    path = write()
    suite = load_suite(str(path), [override])
    assert read(suite)
    assert not read(load_suite(str(path), ["judge={data: other.jsonl, method: dpo}"]))


def test_set_reaches_into_a_judge_data_path(write: Write) -> None:
    suite = load_suite(str(write(more="judge: {data: j.jsonl}\n")), ["judge.data.rows=4", "judge.data.skip=2"])
    data = trained_judge(suite).data
    assert (data.path, data.rows, data.skip) == ("j.jsonl", 4, 2)


def test_later_set_goes_over_an_earlier_one(write: Write) -> None:
    assert load_suite(str(write()), ["train.epochs=2", "train.epochs=3"]).train.epochs == 3


def test_set_changes_no_other_entry_that_shares_a_yaml_anchor(write: Write) -> None:
    path = write(MINIMAL.replace("{train: train.jsonl, val: val.jsonl}", "{train: &all {path: x.jsonl}, val: *all}"))
    suite = load_suite(str(path), ["data.train.rows=3"])
    assert (suite.data.train.rows, suite.data.val.rows) == (3, None)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epochs", "expected key=value"),
        ("=3", "expected key=value"),
        ("", "expected key=value"),
        ("seeds=[1", "the value is not valid YAML"),
        ("base.name=x", "base is not a mapping"),
        ("methods.0=x", "methods is not a mapping"),
        ("trian.epochs=2", "trian: unknown key. Did you mean train"),
        ("train.epoch=2", "train.epoch: unknown key. Did you mean epochs"),
        ("train..epochs=2", "train."),
    ],
)
def test_malformed_set_is_told(write: Write, override: str, said: str) -> None:
    answer = refusal(write(), override)
    assert said in answer
    assert override in answer or "unknown key" in answer


def test_a_mistake_is_told_where_it_was_made(write: Write) -> None:
    path = write(more="seeds: [x]\ntrain: {epochs: 2, warmup: 7}\n")
    said = refusal(path, "train.epochs=-1")
    mine, _, by_set = said.partition(f"--set, over {path}:\n")
    assert mine.startswith(f"{path}:\n  seeds.0: got 'x'; ")
    assert "train.warmup: got 7" in mine
    assert by_set.startswith("  train.epochs: got -1; expected a number greater than 0")
    below = write("name: below\nbase: a/b\ndata: {train: t, val: v}\nmethods: [dpo]\nseeds: [x]\n", name="below.yaml")
    assert refusal(write("extends: below.yaml\nname: mine\n")).startswith(f"{below}:\n  seeds.0: got 'x'; ")


def test_a_suite_that_extends_real_is_not_told_to(write: Write) -> None:
    path = write("extends: real\nname: mine\nbase: a/b\ndata: {train: t.jsonl, val: v.jsonl}\njudge: {data: j.jsonl}\n")
    said = refusal(path, "base=c/d")
    assert said.endswith("→ set them with --set")


# -- variables and paths -----------------------------------------------------------------------------------------------


def test_variables_are_filled_in(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_DATA", "/data")
    monkeypatch.delenv("UNSET", raising=False)
    text = MINIMAL.replace("train.jsonl", '"${MY_DATA}/${MY_DATA}/t.jsonl"').replace("some/base", '"${UNSET:-a/b}"')
    suite = load_suite(str(write(text)))
    assert (suite.data.train.path, suite.base) == ("/data//data/t.jsonl", "a/b")


def test_variable_goes_before_its_default(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_BASE", "c/d")
    assert load_suite(str(write()), ["base=${MY_BASE:-a/b}"]).base == "c/d"
    assert load_suite(str(write()), ["plugins=['${MY_BASE}.py']"]).plugins == ["c/d.py"]


def test_empty_default_is_a_default(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNSET", raising=False)
    assert load_suite(str(write()), ["base=x${UNSET:-}"]).base == "x"


def test_unset_variable_is_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNSET", raising=False)
    path = write(MINIMAL.replace("some/base", "${UNSET}"))
    said = refusal(path)
    assert "the environment variable UNSET is not set" in said
    assert str(path) in said
    assert load_suite(str(path), ["base=other"]).base == "other", "what --set replaces needs no variable"


def test_variable_cannot_bring_yaml(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_BASE", "x\nseeds: [9]")
    suite = load_suite(str(write(MINIMAL.replace("some/base", "${MY_BASE}"))))
    assert suite.seeds == [0]


@pytest.mark.parametrize(
    "value",
    [
        "hf_" + "a1B2" * 8,
        "sk-proj-" + "x" * 24,
        "https://me:letmein9@example.org/data.jsonl",
        "eyJhbGciOiJI.eyJzdWIi.x",
        "in/correct-horse/battery",  # as another variable holds it, whose name says what it is
    ],
)
def test_a_secret_behind_a_harmless_name_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("DB_PASSWORD", "correct-horse")
    monkeypatch.setenv("MY_JUDGE", value)
    said = refusal(write(MINIMAL.replace("some/base", "x-${MY_JUDGE}")))
    assert "${MY_JUDGE} holds what looks like a secret" in said
    assert value not in said


@pytest.mark.parametrize("value", ["/data/hf_models/sk-learn", "s3://bucket/a:b", "C:/data", "12345678", "battery"])
def test_what_is_no_secret_is_filled_in(write: Write, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MAX_TOKENS", "1234567")
    monkeypatch.setenv("MY_BASE", value)
    assert load_suite(str(write(MINIMAL.replace("some/base", "${MY_BASE}")))).base == value


def test_paths_beside_the_suite_are_found(write: Write) -> None:
    path = write(more="judge: {data: judge.jsonl}\nplugins: [mine.py]\n")
    for name in ("train.jsonl", "judge.jsonl", "mine.py"):
        (path.parent / name).touch()
    (path.parent / "some" / "base").mkdir(parents=True)
    suite = load_suite(str(path))
    assert suite.data.train.path == str(path.parent / "train.jsonl")
    assert trained_judge(suite).data.path == str(path.parent / "judge.jsonl")
    assert suite.plugins == [str(path.parent / "mine.py")]
    assert suite.base == str(path.parent / "some" / "base")
    assert suite.data.val.path == "val.jsonl", "what is nowhere stays as it was written"


def test_paths_from_the_current_folder_stay(write: Write, elsewhere: Path) -> None:
    path = write()
    (path.parent / "train.jsonl").touch()
    (elsewhere / "train.jsonl").touch()
    assert load_suite(str(path)).data.train.path == "train.jsonl"


def test_paths_beside_a_parent_are_found(write: Write) -> None:
    parent = write(name="common/parent.yaml")
    (parent.parent / "train.jsonl").touch()
    child = write("extends: common/parent.yaml\nname: child\n", name="child.yaml")
    assert load_suite(str(child)).data.train.path == str(parent.parent / "train.jsonl")


# -- the schema --------------------------------------------------------------------------------------------------------


def accepts(schema: Mapping[str, Any], node: Mapping[str, Any], value: Any) -> bool:
    """Whether a JSON schema node accepts a value, for the keywords that the suite's schema uses."""
    if "$ref" in node:
        return accepts(schema, schema["$defs"][node["$ref"].removeprefix("#/$defs/")], value)
    if "anyOf" in node and not any(accepts(schema, option, value) for option in node["anyOf"]):
        return False
    if ("enum" in node and value not in node["enum"]) or node.get("const", value) != value:
        return False
    kinds: dict[str, type | tuple[type, ...]] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
    }
    if "type" in node and not isinstance(value, kinds[node["type"]]):
        return False
    if isinstance(value, dict):
        known = node.get("properties", {})
        other = node.get("additionalProperties", True)
        return (
            all(
                accepts(schema, known[key], item)
                if key in known
                else other is True or (isinstance(other, dict) and accepts(schema, other, item))
                for key, item in value.items()
            )
            and set(node.get("required", ())) <= set(value)
            and node.get("minProperties", 0) <= len(value) <= node.get("maxProperties", len(value))
        )
    if isinstance(value, list):
        return len(value) >= node.get("minItems", 0) and all(
            accepts(schema, node.get("items", {}), each) for each in value
        )
    if isinstance(value, int | float):
        closed = node.get("minimum", value) <= value <= node.get("maximum", value)
        return bool(
            closed and node.get("exclusiveMinimum", value - 1) < value < node.get("exclusiveMaximum", value + 1)
        )
    return not isinstance(value, str) or re.search(node.get("pattern", ""), value) is not None


def nodes(node: Any) -> Iterator[Mapping[str, Any]]:
    """Every mapping inside a schema."""
    if isinstance(node, dict):
        yield node
        for item in node.values():
            yield from nodes(item)
    elif isinstance(node, list):
        for item in node:
            yield from nodes(item)


def test_schema_is_json_and_every_reference_in_it_resolves() -> None:
    schema = json.loads(json.dumps(json_schema()))
    references = {node["$ref"] for node in nodes(schema) if isinstance(node.get("$ref"), str)}
    assert references
    assert references == {f"#/$defs/{name}" for name in schema["$defs"]}
    assert set(schema["properties"]) == {"extends", *Suite.model_fields}


@pytest.mark.parametrize("path", sorted(builtin_folder("suites").glob("*.yaml")), ids=lambda path: path.stem)
def test_schema_accepts_packaged_suites(path: Path) -> None:
    schema = json_schema()
    assert accepts(schema, schema, yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "change",
    [
        {"seedz": [0]},
        {"train": {"epochs": 0}},
        {"train": {"epocs": 1}},
        {"data": {"train": 3, "val": "x"}},
        {"data": {"train": {"rows": 3}, "val": "x"}},
        {"data": {"train": [], "val": "x"}},
        {"methods": []},
        {"methods": [{}]},
        {"methods": [{"dpo": {}, "kto": {}}]},
        {"methods": [3]},
        {"precision": "int8"},
        {"name": "a b"},
        {"judge": {"method": "rm"}},
    ],
)
def test_schema_refuses_what_the_loader_refuses(write: Write, change: Mapping[str, Any]) -> None:
    schema = json_schema()
    raw = yaml.safe_load(MINIMAL)
    assert accepts(schema, schema, raw)
    assert refusal(write(yaml.safe_dump({**raw, **change})))
    assert not accepts(schema, schema, {**raw, **change})


def test_schema_and_loader_accept_a_list_of_files(write: Write) -> None:
    schema, raw = json_schema(), yaml.safe_load(MINIMAL)
    for train in (["a.jsonl", "b.jsonl"], {"path": ["a.jsonl", "b.jsonl"], "rows": 3}):
        changed = {**raw, "data": {"train": train, "val": "x"}}
        assert accepts(schema, schema, changed)
        assert load_suite(str(write(yaml.safe_dump(changed)))).data.train.paths == ("a.jsonl", "b.jsonl")


def described(schema: Mapping[str, Any], node: Mapping[str, Any]) -> bool:
    """Whether a property says what it is, itself or through what it refers to."""
    if node.get("description"):
        return True
    if "$ref" in node:
        return described(schema, schema["$defs"][node["$ref"].removeprefix("#/$defs/")])
    return any(described(schema, option) for option in node.get("anyOf", ()))


def test_every_key_is_described() -> None:
    schema = json_schema()
    places = [(name, node) for parent in nodes(schema) for name, node in parent.get("properties", {}).items()]
    assert len(places) > 40
    assert [name for name, node in places if isinstance(node, dict) and not described(schema, node)] == []


def test_keys_of_plain_values_describe_themselves() -> None:
    """A key whose value is no mapping cannot lean on the description of one."""
    schema = json_schema()
    plain = [
        name
        for parent in nodes(schema)
        for name, node in parent.get("properties", {}).items()
        if "$ref" not in json.dumps(node) and not node.get("description")
    ]
    assert plain == []


# -- judges ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "kinds"),
    [
        ("", []),
        ("judge: null", []),
        ("judge: gold", [GoldJudge]),
        ("judge: org/model", [LoadedJudge]),
        ("judge: {model: org/model, revision: abc, template: pair}", [LoadedJudge]),
        ("judge: {data: x.jsonl}", [TrainedJudge]),
        (
            "judge: [{data: x.jsonl}, org/model, {method: gold, allow_judge_as_reward: true}]",
            [TrainedJudge, LoadedJudge, GoldJudge],
        ),
    ],
)
def test_judges_are_one_or_several(write: Write, more: str, kinds: list[type]) -> None:
    path = write(more=more)
    assert [type(judge) for judge in load_suite(str(path)).judge] == kinds
    schema = json_schema()
    assert accepts(schema, schema, yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("judge", ["{data: x.jsonl, may_be_reward: true}", "{method: gold, may_be_reward: true}"])
def test_a_renamed_key_is_refused_with_its_new_name(write: Write, judge: str) -> None:
    assert "judge.may_be_reward: renamed; write allow_judge_as_reward" in refusal(write(more=f"judge: {judge}"))
    message = refusal(write(more=f"judge: [org/model, {judge}]"))
    assert "judge.1.may_be_reward: renamed; write allow_judge_as_reward" in message


def test_a_renamed_key_is_no_hint_where_it_never_stood(write: Write) -> None:
    assert "train.may_be_reward: unknown key" in refusal(write(more="train: {may_be_reward: true}"))


def test_what_is_no_judge_is_told(write: Write) -> None:
    assert "expected {method: rm, data: …}, a hub id, a folder, gold" in refusal(write(more="judge: [3]"))
    assert "template" in refusal(write(more="judge: {model: a/b, template: chatt}"))


def test_judges_have_names_of_their_own() -> None:
    def named(*raw: Any) -> list[str]:
        return judge_names(Suite.model_validate({**yaml.safe_load(MINIMAL), "judge": list(raw)}).judge)

    rm = {"method": "rm", "data": "x.jsonl"}
    several = {**rm, "ensemble": {"size": 3, "combine": "worst"}}
    assert named(rm, rm, several, "a/b", {"model": "c/d", "name": "mine"}, "gold") == [
        *("rm", "rm (2)", "3 × rm, worst", "a/b", "mine", "gold")
    ]
    for twice in (["gold", "gold"], [{**rm, "name": "x"}, {"model": "a/b", "name": "x"}], [{**rm, "name": "gold"}]):
        with pytest.raises(SuiteError):
            named(*twice)


def test_another_kind_of_judge_takes_the_place_of_the_one_extended(write: Write) -> None:
    write(
        "name: below\nbase: b\ndata: {train: t.jsonl, val: v.jsonl}\nmethods: [dpo]\njudge: {data: j.jsonl}\n",
        name="below.yaml",
    )
    loaded = load_suite(str(write("extends: below.yaml\nname: above\njudge: {model: a/b}\n"))).judge
    assert loaded == (LoadedJudge(model="a/b"),)
    (changed,) = load_suite(str(write("extends: below.yaml\nname: above\njudge: {seed: 3}\n"))).judge
    assert isinstance(changed, TrainedJudge)
    assert (changed.seed, changed.data.path) == (3, "j.jsonl")


def test_a_judges_folder_beside_the_suite_is_found(write: Write) -> None:
    path = write(more="judge: [my-judge, org/model]")
    (path.parent / "my-judge").mkdir()
    beside, hub = load_suite(str(path)).judge
    assert isinstance(beside, LoadedJudge)
    assert isinstance(hub, LoadedJudge)
    assert (beside.model, beside.title, hub.model) == (str(path.parent / "my-judge"), "my-judge", "org/model")


def test_what_counts_as_equivalent_is_a_key_with_a_default() -> None:
    given = {"name": "x", "base": "embedded/tiny", "methods": ["dpo"], "data": {"train": "a.csv", "val": "b.csv"}}
    assert Suite.model_validate(given).report.equivalence_dz == 0.1
    assert Suite.model_validate({**given, "report": {"equivalence_dz": 0.2}}).report.equivalence_dz == 0.2
    with pytest.raises(ValidationError, match="greater than 0"):
        Suite.model_validate({**given, "report": {"equivalence_dz": 0}})
    for key in ("equivalence_dz", "seed_noise"):
        with pytest.raises(ValidationError, match="valid number"):
            Suite.model_validate({**given, "report": {key: True}})


READS = """base: some/base
data: {train: a.jsonl, val: b.jsonl}
name: mine
methods: [dpo]
"""


def test_what_templates_read_is_said_for_the_base_and_for_each_judge(write: Write) -> None:
    more = (
        "chat_template_kwargs: {enable_thinking: false, rules: [a, {b: 1}]}\ndate: 2026-03-04\n"
        "judge: {model: org/judge, chat_template_kwargs: {enable_thinking: true}, date: '2026-03-05'}"
    )
    suite = load_suite(str(write(READS + more)))
    assert suite.chat_template_kwargs == {"enable_thinking": False, "rules": ["a", {"b": 1}]}
    assert suite.date == "2026-03-04"
    (judge,) = suite.judge
    assert isinstance(judge, LoadedJudge)
    assert (judge.chat_template_kwargs, judge.date) == ({"enable_thinking": True}, "2026-03-05")
    plain = load_suite(str(write(READS, name="plain.yaml")))
    assert (plain.chat_template_kwargs, plain.date) == ({}, None)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("chat_template_kwargs: {tokenize: true}", "tokenize is not for a suite to set"),
        ("chat_template_kwargs: {strftime_now: x}", "set `date`"),
        ("chat_template_kwargs: {a-b: 1}", "not the name of a template's variable"),
        ("chat_template_kwargs: enable_thinking", "expected a mapping"),
        ("date: 4 March", "expected a day, such as 2026-01-01"),
        ("date: 2026-02-30", "day is out of range"),
        ("date: '2026-02-30'", "day is out of range"),
        ("date: 20260304", "string"),
        ("date: 2026-03-04 10:00:00", "string"),
        ("judge: {method: rm, holdout: 0.2, date: 2026-03-04}", "unknown key"),
    ],
)
def test_template_inputs_are_strict(write: Write, more: str, said: str) -> None:
    with pytest.raises(SuiteError, match=said):
        load_suite(str(write(READS + more)))


@pytest.mark.parametrize("most", ["-0.1", "1.5", "'0.1'", "true"])
def test_the_share_of_rows_that_may_be_dropped_is_a_share(write: Write, most: str) -> None:
    text = READS.replace("b.jsonl}", f"b.jsonl, max_dropped: {most}}}")
    with pytest.raises(SuiteError, match=r"data\.max_dropped"):
        load_suite(str(write(text)))
    assert load_suite(str(write(text.replace(most, "0.3")))).data.max_dropped == 0.3
    assert load_suite(str(write(READS))).data.max_dropped == 0.05


def test_another_base_does_not_inherit_what_its_template_reads(write: Write) -> None:
    write(READS + "chat_template_kwargs: {enable_thinking: false}\n", name="below.yaml")
    same = write("extends: below.yaml\nname: same\nseeds: [1]\n", name="same.yaml")
    assert load_suite(str(same)).chat_template_kwargs == {"enable_thinking": False}
    other = write("extends: below.yaml\nname: other\nbase: other/base\n", name="other.yaml")
    assert load_suite(str(other)).chat_template_kwargs == {}


# -- how much a suite may ask for --------------------------------------------------------------------------------------


def test_a_grid_is_counted_before_it_is_laid_out(write: Write) -> None:
    values = list(range(1, 101))
    text = MINIMAL.replace("[dpo]", f"[dpo: {{batch_size: {values}, epochs: {values}, beta: {values}}}]")
    started = time.process_time()
    said = refusal(write(text))
    assert time.process_time() - started < 5
    assert "mine.yaml: methods: dpo: got 1,000,000 of 1,000,000 cells" in said
    assert "at most 20,000" in said


@pytest.mark.parametrize(
    "more",
    [
        f"seeds: {list(range(20_001))}",
        "tune: {trials: 1000000000}",
        f"tune: {{methods: {{dpo: {{beta: {list(range(1, 201))}, batch_size: {list(range(1, 201))}}}}}}}",
        "judge: {data: a.jsonl, ensemble: {size: 1000000000}}",
    ],
    ids=["seeds", "trials", "listed trials", "ensemble"],
)
def test_all_that_makes_cells_is_counted(write: Write, more: str) -> None:
    assert "expected at most 20,000" in refusal(write(more=more))
