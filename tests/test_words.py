"""Odd words that are not used: in pages, in the program's help, and in what it says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from align_bench.cli.main import app

ROOT = Path(__file__).parents[1]
# What is odd, as a regular expression → what an engineer writes.
ODD = {
    r"\bno end\b(?! of turn| token)": "unfinished",
    r"\bnone shown\b": "inconclusive",
    r"\btold apart\b": "distinguished; of two methods: inconclusive",
    r"\b(?:pairs|tokens|rows|nats|bytes|seconds|operations|prompts|answers|examples|samples|FLOPs?) an? "
    r"(?:step|token|prompt|pair|second|row|answer|batch|pass|weight)\b": "per",
    r"\b(?:one|a column|a row|a line|a file|an object) an? "
    r"(?:method|stage|cell|seed|prompt|policy|judge|pair)\b": "per",
    r"\bprice (?:on|of) (?:the )?(?:drift|KL)\b": "a KL penalty, its coefficient",
    r"\bKL price\b": "KL penalty",
    r"\b(?:is|are) no (?:number|name|suite|file|folder|method|seed|seeds|model|adapter|report)s?\b": "is not a …",
    r"\bwho knows\b": "whoever knows",
    r"\bmay turn what is said\b": "may not hold under another seed",
    r"\bstands? on the brake\b": "is limited by",
    r"\ba report of which\b": "a report whose",
    r"\bright on no more\b": "right on at most",
    r"\bthe machine had not\b": "the machine did not have",
    r"\bgets? lost\b": "is lost",
    r"\banew\b": "again",
    r"\bpassed over\b": "ignored",
    r"\bfor ever\b": "forever",
    r"\b(?:tie|ties) counts? ½": "counts as ½",
    r"\bintervals?, each by itself\b": "each on its own",
}
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "AGENTS.md", "SECURITY.md", "mkdocs.yml")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "reports" / "README.md",
    ROOT / "algorithms" / "README.md",
    *sorted((ROOT / "suites").glob("*.yaml")),
]


ANY = re.compile("|".join(ODD), re.IGNORECASE)


def odd(text: str) -> list[str]:
    """Every odd word of a text, with what to write."""
    one_line = " ".join(text.split())
    if not ANY.search(one_line):
        return []
    return [
        f"{found[0]} → {better}"
        for words, better in ODD.items()
        for found in re.finditer(words, one_line, re.IGNORECASE)
    ]


def without_quotations(page: str) -> str:
    """A page without its comments, its blocks of code, its `code`, and what it quotes in "…"."""
    page = re.sub(r"^```.*?^```$|<!--.*?-->", "", page, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`|\"[^\"\n]{1,40}\"", "", page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_has_an_odd_word(page: Path) -> None:
    assert odd(without_quotations(page.read_text(encoding="utf-8"))) == []


def test_no_help_has_an_odd_word() -> None:
    group = typer.main.get_command(app)
    told = {name: [command.help, *(one.help for one in command.params)] for name, command in group.commands.items()}  # type: ignore[attr-defined]
    assert len(told) > 10
    assert {name: found for name, texts in told.items() if (found := odd(" ".join(map(str, texts))))} == {}


def said(module: Path) -> Iterator[str]:
    """The texts of a module that are not docstrings."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_nothing_that_is_said_has_an_odd_word() -> None:
    modules = sorted((ROOT / "align_bench").rglob("*.py"))
    found = [(module.name, word) for module in modules for text in said(module) for word in odd(text)]
    assert found == []


def test_odd_words_are_found() -> None:
    assert odd("no end of turn; the tokenizer has no end token") == []
    for text in (
        "four pairs a step",
        "a row a method",
        "no\nend",
        "1,000 tokens a second",
        "A KL price of 0.2",
        "made anew",
        "a tie counts ½",
    ):
        assert odd(text) != [], text
    assert odd("no end of turn; the tokenizer has no end token") == []
    for text in ("four pairs per step", "a row per method", "in the end", "a step of training", "no endings"):
        assert odd(text) == [], text
    assert odd(without_quotations('say "no end" or `none shown`')) == []
