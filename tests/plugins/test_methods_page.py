"""What the pages of methods hold, and what they say of tests is so. That they are up to date: tests/test_docs.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from align_bench.api.docstrings import elsewhere, held_equal, section
from align_bench.plugins.methods_page import ORDER, Curve, Curves, page, pages
from align_bench.plugins.registry import load_registry

BUILT_IN = {name: each.algorithm for name, each in load_registry().plugins.items() if each.origin == "built-in"}
CURVE = Curve({"learning_rate": 0.001}, {"loss": [0.7, 0.6, 0.5, None, 0.4], "accuracy": [0.5, 0.5, 0.6, 0.7, 0.75]})
CURVES = Curves(
    command="python make.py",
    commit="0123abc",
    machine="a processor, 1 thread",
    libraries={"torch": "2.0"},
    suite={"base": "a base", "train": "some rows", "pairs": 240, "seed": 0},
    curves={name: CURVE for name in BUILT_IN if name != "best_of_n"},
    without={"best_of_n": "it trains nothing"},
)
PAGES = pages(CURVES)


def test_every_method_has_a_family_and_something_that_it_is_held_to() -> None:
    assert {algorithm.family for algorithm in BUILT_IN.values()} == set(ORDER)
    assert [name for name, algorithm in BUILT_IN.items() if not held_equal(algorithm.doc)] == []


def test_what_is_held_equal_to_trl_is_there_too() -> None:
    for name, algorithm in BUILT_IN.items():
        if held_equal(algorithm.doc).startswith("TRL"):
            assert elsewhere(algorithm.doc).startswith("TRL: "), name


def test_the_page_of_all_methods_leads_to_each() -> None:
    assert [name for name in BUILT_IN if f"| [`{name}`](methods/{name}.md) |" not in page()] == []


def test_every_method_has_a_page() -> None:
    assert set(PAGES) == set(BUILT_IN)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_page_holds_what_the_method_declares(name: str) -> None:
    algorithm, text = BUILT_IN[name], PAGES[name]
    assert text.startswith(f"# {name}\n\n{algorithm.summary}\n")
    assert f"](../../algorithms/{name}.py)" in text
    assert f"```text\n{section(algorithm.doc, 'Equation')}\n```" in text
    assert all(f"| `{parameter}` |" in text for parameter in algorithm.parameters)
    assert "\n## Source\n" in text
    assert "\n## Differs from " in text


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_snippet_says_the_defaults(name: str) -> None:
    algorithm = BUILT_IN[name]
    said = yaml.safe_load(PAGES[name].partition("```yaml\n")[2].partition("```")[0])["methods"]
    given = {} if said[-1] == name else said[-1][name]
    assert algorithm.resolve(given) == {each: found.default for each, found in algorithm.parameters.items()}
    assert set(given) == set(algorithm.parameters)
    reward = given.get("reward", "gold")
    assert said[:-1] == ([] if reward == "gold" else [reward])


def test_a_curve_is_told_in_words() -> None:
    text = PAGES["dpo"]
    ends = "loss from 0.7 to 0.4; accuracy from 0.5 to 0.75"
    assert f"![Line plots over 5 optimizer steps: {ends}](../pictures/methods/dpo.svg)" in text
    assert "one training from `a base` on 240 pairs of `some rows` with seed 0, `dpo: {learning_rate: 0.001}`" in text
    assert "Made by `python make.py` with the code of commit 0123abc, on a processor, 1 thread, torch 2.0." in text


def test_a_page_without_a_curve_says_why() -> None:
    assert "No curve: it trains nothing.\n" in PAGES["best_of_n"]
    assert ".svg" not in PAGES["best_of_n"]
    assert "No curve yet: `python make.py` trains it.\n" in pages(replace(CURVES, curves={}))["dpo"]


def test_curves_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "curves.json"
    path.write_text(CURVES.text(), encoding="utf-8")
    assert Curves.read(path) == CURVES
    assert '"loss": [ 0.7, 0.6, 0.5, null, 0.4 ]' in CURVES.text()
