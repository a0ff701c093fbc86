from __future__ import annotations

import doctest
import re
from typing import TYPE_CHECKING

from align_bench.report.render import markdown
from align_bench.report.tables import report_sections

if TYPE_CHECKING:
    from tests.report.conftest import Run


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(markdown).failed == 0


def test_hostile_text_stays_literal(run: Run) -> None:
    text = markdown.render(run.report())
    assert "<script>" not in text
    assert "\x1b" not in text
    assert "\\[red\\]x\\[/red\\]&lt;script&gt;alert(1)&lt;/script&gt;\\|\\`a\\|b\\`" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1


def test_it_says_what_the_report_was_made_from(run: Run) -> None:
    report = run.report()
    text = markdown.render(report)
    assert "```\nalign-bench run suites/demo.yaml\n```" in text
    assert re.search(r"^- data\.val: 61 rows read \(.*60 kept$", text, re.MULTILINE)
    assert f"- judge {report.judges[0].name}.status: done" in text
    assert f"- environment.python: {report.environment.python}" in text
    assert "| 12 min 34 s | 12,345 | 3.0 GiB |" in text
    leaderboards, titles = [
        [section.title for section in report_sections(report) if (section.chapter == "verdict") == opening]
        for opening in (True, False)
    ]
    assert leaderboards == ["Leaderboard", "Leaderboard of reward models"]
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [
        "Verdict",
        *leaderboards,
        "The numbers behind it",
        *titles,
        "Notes",
        "Environment",
    ]


def test_a_command_cannot_leave_its_code_block(run: Run) -> None:
    text = markdown.render(run.report().model_copy(update={"command": "x ```\n# y"}))
    assert "````\nx ``` # y\n````" in text
