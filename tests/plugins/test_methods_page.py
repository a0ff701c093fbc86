"""docs/methods.md is what the code writes, and what it says of tests is so."""

from __future__ import annotations

from pathlib import Path

from align_bench.api.docstrings import elsewhere, held_equal
from align_bench.plugins.methods_page import ORDER, page
from align_bench.plugins.registry import load_registry

BUILT_IN = {name: each.algorithm for name, each in load_registry().plugins.items() if each.origin == "built-in"}
ROOT = Path(__file__).parents[2]


def test_the_page_is_what_the_code_writes() -> None:
    assert (ROOT / "docs" / "methods.md").read_text(encoding="utf-8") == page(), "see the docstring of methods_page"


def test_every_method_has_a_family_and_something_that_it_is_held_to() -> None:
    assert {algorithm.family for algorithm in BUILT_IN.values()} == set(ORDER)
    assert [name for name, algorithm in BUILT_IN.items() if not held_equal(algorithm.doc)] == []


def test_what_is_held_equal_to_trl_is_there_too() -> None:
    for name, algorithm in BUILT_IN.items():
        if held_equal(algorithm.doc).startswith("TRL"):
            assert elsewhere(algorithm.doc).startswith("TRL: "), name


def test_page_has_equations_parameters_and_links() -> None:
    text = page()
    for name, algorithm in BUILT_IN.items():
        assert f"\n### {name}\n" in text
        assert f"](../algorithms/{name}.py)" in text
        own = text.partition(f"\n### {name}\n")[2].partition("\n### ")[0]
        assert all(f"| `{parameter}` |" in own for parameter in algorithm.parameters)
        assert "```text\n" in own
