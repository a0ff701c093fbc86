"""The newcomer's walk: what it types, what it leaves out, and what it says of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from empty_home import Done, Home
from newcomer import BLOCK, NOTEBOOK, ROOT, SKIPPED, SMALLER, WALK, Step, page_of


def lines(page: str) -> list[str]:
    found = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    return [line for language, code in found if language == "sh" for line in code.splitlines()]


APART = {"docs/scaling.md"}  # its lines want GPUs or a cluster; it says of each whether it was run
WALKED = [line for page, _ in WALK if page != NOTEBOOK for line in lines(page)]


def test_every_page_with_lines_to_type_is_walked_or_says_what_the_walked_ones_say() -> None:
    walked = {page for page, _ in WALK}
    pages = {"README.md", *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))}
    left = {page: set(lines(page)) for page in pages - walked - APART}
    typed = {line.partition(" #")[0].strip() for line in WALKED}
    assert {
        page: found for page, found in left.items() if {one.partition(" #")[0].strip() for one in found} - typed
    } == {}


@pytest.mark.parametrize("pattern", [*SKIPPED, *(pattern for pattern, _ in SMALLER)])
def test_no_exception_is_left_over(pattern: str) -> None:
    text = "\n".join([*WALKED, (ROOT / "README.md").read_text(encoding="utf-8")])
    assert re.search(pattern, text, re.MULTILINE)


def test_a_line_ends_as_its_page_says() -> None:
    done = Done(1, 2.0, "wrong")
    assert Step("page.md", "align-bench check x.py   # exit code 1: there is no loss yet", done=done).as_said
    assert not Step("page.md", "align-bench check x.py", done=done).as_said
    assert Step("page.md", "align-bench publish x", skipped="it needs an account").as_said


def test_what_failed_is_counted_and_said() -> None:
    steps = [Step("a.md", "one | two", done=Done(0, 1.0, "")), Step("a.md", "three", done=Done(2, 1.0, "no"))]
    said = page_of([*steps, Step("a.md", "four", skipped="why")], "python newcomer.py", "commit abc")
    assert "2 lines typed in an empty home and a fresh environment, 1 failed, 1 skipped" in said
    assert "| a.md | `one \\| two` | ended with 0, 1 s |" in said
    assert "| a.md | `three` | FAILED with 2, 1 s |" in said


def test_nothing_of_the_caller_s_environment_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("PIP_INDEX_URL", "https://example.org/simple")
    home = Home(tmp_path)
    seen = home.run('echo "$HOME $PYTHONPATH $PIP_INDEX_URL"; exit 3', tmp_path)
    assert (seen.code, seen.output.split()) == (3, [str(tmp_path / "home"), "https://example.org/simple"])
