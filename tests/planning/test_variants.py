"""The points of every method's grid: how they are checked, and what they are called."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from align_bench.errors import PluginError, SuiteError
from align_bench.planning.variants import Variant, named_variants
from align_bench.plugins.registry import Broken, Registry, load_registry
from align_bench.suite.models import Suite

REGISTRY = load_registry()


def variants(*methods: Any, registry: Registry = REGISTRY, tune: Mapping[str, Any] | None = None) -> dict[str, Variant]:
    """The named variants of a suite with these methods."""
    raw = {
        "name": "planned",
        "base": "some/base",
        "data": {"train": "train.jsonl", "val": "val.jsonl"},
        "judge": None,
        "methods": list(methods),
        "tune": tune,
    }
    return {str(name): found for name, found in named_variants(Suite.model_validate(raw), registry).items()}


def names(*methods: Any) -> list[str]:
    """Only what they are called, in order."""
    return list(variants(*methods))


# -- names -------------------------------------------------------------------------------------------------------------


def test_a_method_is_a_variant() -> None:
    assert names("rm", "dpo", "kto", "simpo") == ["rm", "dpo", "kto", "simpo"]


def test_ten_thousand_settings_are_named_in_seconds() -> None:
    started = time.process_time()
    found = names({"dpo": {"beta": [place / 1e5 for place in range(1, 101)], "batch_size": [*range(1, 101)]}})
    assert len(set(found)) == 10_000
    assert found[1] == "dpo[batch_size=2,beta=1e-05]"
    assert time.process_time() - started < 5


def test_a_grid_names_what_differs() -> None:
    assert names("simpo", {"dpo": {"beta": [0.1, 0.5]}}) == ["simpo", "dpo[beta=0.1]", "dpo[beta=0.5]"]
    assert names({"rm": {"learning_rate": [1e-5, 1e-4], "centering": 0.5}}) == [
        "rm[learning_rate=1e-05]",
        "rm[learning_rate=0.0001]",
    ]


def test_a_grid_is_the_product_of_its_lists() -> None:
    assert names({"simpo": {"beta": [2, 10], "gamma": [0.5, 1]}}) == [
        "simpo[beta=2.0,gamma=0.5]",
        "simpo[beta=2.0,gamma=1.0]",
        "simpo[beta=10.0,gamma=0.5]",
        "simpo[beta=10.0,gamma=1.0]",
    ]


def test_one_method_named_twice_is_told_apart() -> None:
    assert names("dpo", {"dpo": {"beta": 0.5}}) == ["dpo[beta=0.1]", "dpo[beta=0.5]"]


def test_what_tune_searches_is_in_no_name() -> None:
    with pytest.raises(
        SuiteError, match="methods: dpo is listed twice with equal parameters, those that tune searches"
    ):
        variants({"dpo": {"beta": [0.1, 0.5]}}, tune={})
    found = variants({"kto": {"desirable_weight": [1, 2], "beta": 0.3}}, tune={})
    assert list(found) == ["kto[desirable_weight=1.0]", "kto[desirable_weight=2.0]"]
    assert [one.parameters["beta"] for one in found.values()] == [0.3, 0.3]


# -- what they hold ----------------------------------------------------------------------------------------------------


def test_parameters_are_resolved() -> None:
    (found,) = variants({"simpo": {"beta": 10, "learning_rate": 1}}).values()
    assert found.parameters == {"beta": 10.0, "gamma": 1.25}
    assert found.learning_rate == 1.0
    assert found.everything == {"learning_rate": 1.0, "beta": 10.0, "gamma": 1.25}
    assert variants("dpo")["dpo"].learning_rate == REGISTRY["dpo"].algorithm.learning_rate


def test_default_that_is_written_out_changes_nothing() -> None:
    assert variants("dpo") == variants({"dpo": {"beta": 0.1}})
    assert variants("dpo") == variants({"dpo": {"learning_rate": REGISTRY["dpo"].algorithm.learning_rate}})
    assert variants({"simpo": {"beta": 2}}) == variants({"simpo": {"beta": 2.0}})


def test_a_method_may_have_training_settings_of_its_own() -> None:
    found = variants("rm", {"dpo": {"batch_size": [4, 8], "epochs": 2}}, "dpo")
    assert list(found) == ["rm", "dpo[epochs=2,batch_size=4]", "dpo[epochs=2,batch_size=8]", "dpo"]
    _, four, _, plain = found.values()
    assert four.settings == {"batch_size": 4, "epochs": 2}
    assert four.everything["batch_size"] == 4
    assert plain.settings == {}
    assert "batch_size" not in plain.everything


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, 1.5, "8", True, None])
@pytest.mark.parametrize("key", ["epochs", "batch_size"])
def test_own_settings_are_whole_numbers(key: str, value: Any) -> None:
    with pytest.raises(SuiteError, match=f"dpo: {key}: got {value!r}, expected a whole number > 0"):
        variants({"dpo": {key: value}})


def test_a_method_that_trains_nothing_has_no_training_settings() -> None:
    with pytest.raises(SuiteError, match="epochs"):
        variants("rm", {"best_of_n": {"reward": "rm", "epochs": 2}})


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"betta": 0.1}, r"dpo has no parameter 'betta'\. Did you mean beta"),
        ({"learning_rat": 0.1}, "Did you mean learning_rate"),
        ({"beta": 0}, "beta: got 0, expected float > 0"),
        ({"beta": "high"}, "beta: got 'high', expected float > 0"),
        ({"beta": None}, "beta: got None, expected float > 0"),
        ({"beta": [0.1, -1]}, "beta: got -1, "),
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
        variants("rm", {"dpo": dict(parameters)})
    assert "methods: dpo" in str(caught.value)


def test_unknown_method_suggests_the_nearest() -> None:
    with pytest.raises(PluginError, match=r"no method 'dop'\. Did you mean dpo"):
        variants("dop")


def test_broken_method_is_fatal_only_where_it_is_selected() -> None:
    registry = Registry(REGISTRY.plugins, (Broken("mine", Path("mine.py"), "RuntimeError: no luck"),))
    assert variants("dpo", registry=registry) == variants("dpo")
    with pytest.raises(PluginError, match=r"mine\.py cannot be loaded: RuntimeError: no luck"):
        variants("dpo", "mine", registry=registry)


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
def test_duplicates_are_named(methods: list[Any], named: str) -> None:
    with pytest.raises(SuiteError, match=rf"methods: {named}.* is listed twice"):
        variants(*methods)


def test_two_cells_of_one_text_are_refused_before_any_work(tmp_path: Path) -> None:
    """Rows, folders and commands know a cell by its text."""
    path = tmp_path / "two.py"
    path.write_text(
        "from align_bench.api import Loss, PairLogps, algorithm\n\n\n"
        '@algorithm(paper="none", learning_rate=1e-4, reward="s")\n'
        'def two(logps: PairLogps, *, m: str = "a", n: str = "b") -> Loss:\n'
        '    """Two texts."""\n'
        "    raise NotImplementedError\n"
    )
    registry = load_registry(extra=[str(path)])
    both = {"two": {"m": "a,n=b", "n": "c"}}, {"two": {"m": "a", "n": "b,n=c"}}
    with pytest.raises(SuiteError, match=r"two\[m=a,n=b,n=c\] is listed twice"):
        variants(*both, registry=registry)
    assert len(variants(*both[:1], registry=registry)) == 1
