"""Sums of losses in a suite: how they are written, what they are called, and what cannot be summed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from align_bench.api import OfflineAlgorithm, SumOfLosses
from align_bench.errors import PluginError, SuiteError
from align_bench.planning.variants import Variant, named_variants
from align_bench.plugins.registry import Plugin, Registry, load_registry
from align_bench.suite.models import Suite

REGISTRY = load_registry()


def with_sums(*methods: Any, registry: Registry = REGISTRY) -> tuple[Suite, Registry]:
    raw = {"name": "sums", "base": "some/base", "data": {"train": "a.jsonl", "val": "b.jsonl"}, "methods": methods}
    suite = Suite.model_validate(raw)
    return suite, registry.with_sums(suite.methods)


def plugin(method: Any) -> Plugin:
    suite, registry = with_sums(method)
    return registry[suite.methods[0].name]


def variants(*methods: Any) -> dict[str, Variant]:
    return {str(name): found for name, found in named_variants(*with_sums(*methods)).items()}


def test_a_sum_is_called_by_its_terms_or_by_its_own_name() -> None:
    found = variants({"sum": {"sft": 1.0, "dpo": 0.8}}, {"mpo": {"sum": {"sft": 1, "dpo": 0.8, "bco": 0.2}}})
    assert list(found) == ["dpo+sft", "mpo"]
    mpo = found["mpo"].parameters
    assert [name for name in mpo if name.endswith(".weight")] == ["bco.weight", "dpo.weight", "sft.weight"]
    assert (mpo["bco.weight"], mpo["dpo.weight"], mpo["sft.weight"], mpo["dpo.beta"]) == (0.2, 0.8, 1.0, 0.1)


def test_each_term_has_parameters_of_its_own_and_lists_make_a_grid() -> None:
    terms = {"dpo": {"weight": [0.5, 0.8], "beta": [0.1, 0.3]}, "cpo": {"weight": 1.0, "beta": 0.02}}
    found = variants({"mine": {"sum": terms, "learning_rate": 1e-4, "epochs": 2}})
    assert len(found) == 4
    one = found["mine[dpo.weight=0.8,dpo.beta=0.3]"]
    assert (one.parameters["cpo.beta"], one.learning_rate, one.settings) == (0.02, 1e-4, {"epochs": 2})
    inside = variants({"sum": {"dpo": 0.5, "sft": 1.0, "learning_rate": 2e-4}})
    assert inside["dpo+sft"].learning_rate == 2e-4


def test_the_order_of_terms_says_nothing() -> None:
    one = {"mpo": {"sum": {"dpo": 0.8, "bco": {"weight": 0.2, "beta": 0.3}, "sft": 1.0}}}
    other = {"mpo": {"sum": {"sft": 1.0, "bco": {"beta": 0.3, "weight": 0.2}, "dpo": 0.8}}}
    assert variants(one) == variants(other)
    assert list(variants(one)["mpo"].parameters) == list(variants(other)["mpo"].parameters)
    assert plugin(one).digest == plugin(other).digest
    assert plugin(one).digest != plugin({"mpo": {"sum": {"dpo": 0.8, "sft": 1.0}}}).digest


def test_a_changed_term_changes_the_sum(tmp_path: Path) -> None:
    text = (REGISTRY["dpo"].path).read_text(encoding="utf-8").replace("def dpo(", "def mine(")
    digests = []
    for more in ("", "\nX = 1\n"):
        (tmp_path / "mine.py").write_text(text + more, encoding="utf-8")
        _, registry = with_sums({"sum": {"mine": 1, "sft": 1}}, registry=load_registry(extra=[str(tmp_path)]))
        digests.append(registry["mine+sft"].digest)
    assert digests[0] != digests[1]


def test_what_a_sum_reads_is_what_its_terms_do() -> None:
    def reads(**terms: float) -> OfflineAlgorithm:
        found = plugin({"sum": terms}).algorithm
        assert isinstance(found, SumOfLosses)
        return found

    free = reads(cpo=1, simpo=1)
    assert (free.data, free.reference, free.reading.batch) == ("pairs", False, False)
    some = reads(sft=1, dpo=1)
    assert (some.data, some.reference, some.reading.batch) == ("pairs", True, False)
    every = reads(bco=1, ld_dpo=1, odpo=1, wpo=1).reading
    assert (every.data, every.batch, every.prefix, every.margin, every.confidence) == ("pairs", *[True] * 4)
    single = reads(kto=1, bco=1).reading
    assert (single.data, single.mismatched, single.batch) == ("unpaired", True, True)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"dpo": 1, "ppo": 1}, "ppo learns from answers that the policy writes itself"),
        ({"dpo": 1, "rm": 1}, "rm trains a reward model"),
        ({"dpo": 1, "trl_kto": 1}, "trl_kto takes the whole training"),
        ({"dpo": 1, "best_of_n": 1}, "best_of_n trains nothing"),
        ({"dpo": 1, "tr_dpo": 1, "sft": 1}, "the reference of tr_dpo moves, and dpo reads a reference too"),
        ({"dpo": 1, "sftt": 1}, "no method 'sftt'. Did you mean sft"),
    ],
)
def test_what_cannot_be_summed_is_told(terms: dict[str, float], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        with_sums({"sum": terms})


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"sum": {"dpo": 1}}, "a sum has two terms or more, got 1"),
        ({"sum": {"dpo": {"beta": 0.1}, "sft": 1}}, "sum: dpo has no weight"),
        ({"sum": {"dpo": None, "sft": 1}}, "sum: dpo: got None, expected its weight"),
        ({"sum": {"dpo": "much", "sft": 1}}, "sum: dpo: got 'much', expected its weight"),
        ({"my sum": {"sum": {"dpo": 1, "sft": 1}}}, "'my sum' cannot name a sum"),
    ],
)
def test_a_sum_that_is_written_wrong_is_told(method: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        with_sums(method)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"dpo": 0, "sft": 1}, r"dpo.weight: got 0, expected float > 0"),
        ({"dpo": {"weight": 1, "betta": 0.1}, "sft": 1}, r"has no parameter 'dpo.betta'. Did you mean dpo.beta"),
        ({"dpo": {"weight": 1, "beta": -1}, "sft": 1}, r"dpo.beta: got -1, expected float > 0"),
    ],
)
def test_a_wrong_parameter_of_a_term_is_told(terms: dict[str, Any], message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        variants({"sum": terms})


def test_names_that_are_taken_are_told() -> None:
    with pytest.raises(PluginError, match="the name 'kto' of a sum is taken"):
        with_sums({"kto": {"sum": {"dpo": 1, "sft": 1}}})
    with pytest.raises(PluginError, match="two sums of other terms are called 'mpo'"):
        with_sums({"mpo": {"sum": {"dpo": 1, "sft": 1}}}, {"mpo": {"sum": {"ipo": 1, "sft": 1}}})
    assert len(variants({"mpo": {"sum": {"dpo": 1, "sft": 1}}}, {"mpo": {"sum": {"dpo": 2, "sft": 1}}})) == 2
