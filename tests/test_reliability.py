"""`docs/reliability.md` names a test for each promise, and every test that it names exists."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`((?:[\w/]+/)?test_\w+\.py)::(\w+)`")


def test_every_test_that_the_page_names_exists() -> None:
    named = NAMED.findall(PAGE)
    assert len(named) > 40
    assert PAGE.count("::") == len(named), "a test is named in another form"
    lost = []
    for file, test in named:
        path = ROOT / "tests" / file
        tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
        if test not in {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}:
            lost.append(f"{file}::{test}")
    assert lost == []


def test_every_promise_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(rows) > 20
    assert [row for row in rows if not NAMED.search(row)] == []


def test_the_page_says_the_counts_of_the_last_long_run() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "faults.json").read_text(encoding="utf-8"))
    said = re.search(r"^Counts: (.+)\.$", PAGE, re.MULTILINE)
    assert said is not None
    assert said.group(1) == ", ".join(f"{name} {counts['faults']}" for name, counts in found.items())
    broken = sum(len(counts["wrong"]) for counts in found.values())
    assert f"{broken} of these faults broke a promise" in PAGE
