"""Links of pages to files outside docs/ lead, on the site, to their copies."""

from __future__ import annotations

import posixpath
import re
from types import SimpleNamespace
from typing import Any

import pytest
import site_hooks


def turned(page: str, markdown: str) -> str:
    found = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    files: Any = ()  # mkdocs' own, which a link is turned without
    return site_hooks.on_page_markdown(markdown, found, None, files)


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("methods.md", "../algorithms/dpo.py", "repository/algorithms/dpo.py"),
        ("methods.md", "methods/dpo.md", "methods/dpo.md"),
        ("methods/dpo.md", "../../algorithms/dpo.py", "../repository/algorithms/dpo.py"),
        ("methods/dpo.md", "../methods.md#notation", "../methods.md#notation"),
        ("methods/dpo.md", "../pictures/methods/dpo.svg", "../pictures/methods/dpo.svg"),
        ("methods/dpo.md", "https://arxiv.org/abs/2305.18290", "https://arxiv.org/abs/2305.18290"),
        ("repository/CHANGELOG.md", "docs/methods/dpo.md", "../methods/dpo.md"),
    ],
)
def test_a_link_is_turned_to_where_its_file_is_on_the_site(page: str, link: str, expected: str) -> None:
    assert turned(page, f"[words]({link})") == f"[words]({expected})"


def test_code_is_left_alone() -> None:
    code = "```text\n[words](../algorithms/dpo.py)\n```"
    assert turned("methods.md", code) == code


def test_a_page_of_a_method_brings_its_files_along() -> None:
    assert sorted(set(site_hooks.outside("docs/methods/dpo.md"))) == [
        "algorithms/dpo.py",
        "benchmarks/method_curves.yaml",
    ]
    text = (site_hooks.ROOT / "docs" / "methods" / "dpo.md").read_text(encoding="utf-8")
    here = re.findall(r"\]\(((?:\.\./)[^)#]+)", text)
    assert all((site_hooks.ROOT / posixpath.normpath(f"docs/methods/{target}")).is_file() for target in here)
