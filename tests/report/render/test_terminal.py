from __future__ import annotations

import io
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from rich.console import Console, RenderableType

from align_bench.report.formatting import with_spread
from align_bench.report.render.terminal import _Cell, comparison_tables, pairwise_table, section_table
from align_bench.report.tables import report_sections
from align_bench.report.tables.section import Column, Section, text

if TYPE_CHECKING:
    from tests.report.conftest import Run


def shown(*renderables: RenderableType, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    for renderable in renderables:
        console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_every_section_is_printed_within_a_hundred_columns(run: Run) -> None:
    printed = shown(*comparison_tables(run.report()))
    titles = ["Reward models on", "Policies on", "Generations, judged", "Policies against the base", "Cost", "Notes"]
    positions = [printed.index(title) for title in [*titles[:4], "Failed or skipped cells"]]
    assert positions == sorted(positions)
    assert all(title in printed for title in titles)
    assert max(map(len, printed.splitlines())) <= 100


def test_captions_say_what_the_numbers_are(run: Run) -> None:
    printed = " ".join(shown(*comparison_tables(run.report()), width=400).split())
    assert "β·ρ (dpo)" in printed
    assert "n = 60 pairs." in printed
    assert printed.count("Minimum detectable effect with 60 pairs") == 1
    assert "Preferring the longer answer: accuracy 0." in printed
    assert "kto failed loss is NaN" in printed
    assert "ppo skipped its reward model failed" in printed


def test_hostile_text_stays_literal(run: Run) -> None:
    printed = shown(*comparison_tables(run.report()), width=400)
    assert "[red]x[/red]<script>alert(1)</script>|`a|b` \\x1b[2J" in printed
    assert "\x1b[2J" not in printed
    assert printed.count("[red]x[/red]") == printed.count("<script>")


def test_numbers_are_those_of_the_report(run: Run) -> None:
    report = run.report()
    metrics = next(found for found in report.results if found.name == "dpo").metrics
    printed = shown(*comparison_tables(report), width=200)
    assert with_spread(metrics.accuracy) in printed
    assert f"{metrics.margin.value:.3f}" in printed


def test_two_methods_fit_their_terminal(run: Run) -> None:
    for width in (80, 200):
        printed = shown(pairwise_table(run.report(), "dpo", "simpo"), width=width)
        assert "McNemar" in printed
        assert "verdict" in printed
        assert max(map(len, printed.splitlines())) <= width


@pytest.mark.parametrize("width", range(60, 160))
def test_no_word_is_broken_and_no_number_is_cut(width: int) -> None:
    """The table of `compare`, with the longest names of metrics, tests and verdicts."""
    numbers = ["diff", "95% interval", "bootstrap interval", "p", "Holm p", "dz", "n"]
    columns = [text("metric"), *map(Column, numbers), text("test"), text("verdict")]
    cells = ("+0.013", "[-0.020,+0.046]", "[-0.020,+0.046]", "0.0452", "1", "+0.030", "1000")
    rows = [
        ("accuracy_right_shorter", *cells, "McNemar exact, clustered by prompt", "inconclusive"),
        ("proxy_reward (judge gold)", *cells, "paired t", "equivalent"),
    ]
    printed = shown(section_table(Section("dpo against simpo", columns, rows)), width=width)
    assert {word for row in rows for cell in row for word in cell.split()} <= set(printed.split())
    assert max(map(len, printed.splitlines())) <= width


def test_no_column_is_lost_in_a_narrow_terminal(run: Run) -> None:
    for section in report_sections(run.report()):
        narrow, wide = (shown(section_table(section), width=width) for width in (80, 400))
        assert all(word in wide for column in section.columns for word in column.heading.split())
        assert all(word in narrow for column in section.columns for word in column.heading.split())


def test_columns_without_room_beside_the_others_stand_below_them() -> None:
    columns = [text("name"), Column("first"), Column("second", optional=True)]
    section = Section("t", columns, [("x" * 10, "1" * 10, "2" * 10)])
    assert shown(section_table(section), width=36).count("name") == 1
    narrow = shown(section_table(section), width=35)
    assert narrow.count("name") == 2
    assert "2222222222" in narrow


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (27, ["ppo[kl_coef=0.05,reward=rm]"]),
        (20, ["ppo[kl_coef=0.05,", "reward=rm]"]),
        (15, ["ppo[kl_coef=", "0.05,reward=rm]"]),
        (11, ["ppo", "[kl_coef=", "0.05,", "reward=rm]"]),
        (6, ["ppo", "[kl_co", "ef=", "0.05,", "reward", "=", "rm]"]),
    ],
)
def test_a_long_name_breaks_where_it_is_read(width: int, lines: list[str]) -> None:
    found = _Cell("ppo[kl_coef=0.05,reward=rm]").wrap(Console(width=80), width, overflow="fold")
    assert [line.plain for line in found] == lines


def test_other_words_wrap_as_they_do() -> None:
    found = _Cell("dpo[beta=0.1] over the base").wrap(Console(width=80), 14, overflow="fold")
    assert [line.plain.rstrip() for line in found] == ["dpo[beta=0.1]", "over the base"]


def test_tables_start_without_the_heavy_libraries() -> None:
    heavy = {"numpy", "scipy", "pandas", "statsmodels", "pyarrow", "torch", "transformers"}
    modules = "align_bench.report.render.terminal, align_bench.report.render.markdown"
    code = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
