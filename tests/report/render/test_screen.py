"""The last screen of a run: 22 lines, 80 columns, whatever was run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from align_bench.records import CellId
from align_bench.report.build import build_report
from align_bench.report.export import read_report
from align_bench.report.render.screen import LINES, _cut, last_screen
from align_bench.report.schema import Alarm, AlarmKind, Report
from tests.report.conftest import BASE, DPO, HOSTILE, KTO, PPO, SIMPO, Run, header, outcome
from tests.report.test_leaderboard import answered, seeds

PUBLISHED = Path(__file__).parents[3] / "reports" / "published"
WHERE = "reports/demo/report.html"


def printed(report: Report, width: int = 80, where: str = WHERE) -> list[str]:
    """The lines as a terminal of that width shows them."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    for line in last_screen(report, where, console):
        console.print(line)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def fits(lines: Sequence[str], width: int = 80) -> bool:
    return len(lines) <= LINES and max(map(cell_len, lines)) <= width


def row_names(lines: Sequence[str], report: Report) -> list[str]:
    labels = [row.label for row in report.leaderboard]
    return [label for line in lines for label in labels if line.split("  ")[0].strip() == label]


def grid(count: int) -> dict[CellId, float]:
    """So many policies of different levels, and a base below them all."""
    cells = [
        CellId("ppo", (("kl_coef", 0.01 * number), ("reward", reward)))
        for number in range(count // 2)
        for reward in ("rm", "poe_rm")
    ]
    return {BASE: -1.0, **{cell: 0.1 * place for place, cell in enumerate(cells)}}


@pytest.mark.parametrize("name", ["assignment", "ppo", "smollm2", "debias", "overoptimisation", "sft_then"])
@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_published_reports_fit(name: str, width: int) -> None:
    report = read_report(PUBLISHED / name)
    lines = printed(report, width)
    assert fits(lines, width)
    assert lines[-1] == f"report: {WHERE}"


def test_one_seed() -> None:
    report = answered({BASE: 0.0, DPO: 2.0, KTO: 0.0})
    lines = printed(report)
    assert fits(lines)
    assert row_names(lines, report) == ["dpo", *(row.label for row in report.leaderboard[1:])]
    (heading,) = [line for line in lines if "judge" in line and "words" in line]
    assert heading.split() == ["judge", "win", "rate", "LC", "win", "words", "unfin.", "vs", "base"]
    (dpo,) = [line for line in lines if line.startswith(" dpo")]
    own = next(row for row in report.leaderboard if row.label == "dpo")
    assert f"{own.judge.mean:.3f} ±" in dpo
    assert dpo.endswith("judge↑")
    assert "±: 95% interval (not adjusted); ↑ ↓: above, below (Holm 5%)" in lines


def test_three_seeds_and_ten_methods() -> None:
    methods = [CellId(f"m{number}") for number in range(10)]
    levels = {cell: 0.3 * number for number, method in enumerate(methods) for cell in seeds(method)}
    report = answered({BASE: 0.0, **levels}, dict.fromkeys([BASE, *levels], 0.5))
    lines = printed(report)
    assert fits(lines)
    assert sorted(row_names(lines, report)) == sorted(row.label for row in report.leaderboard)
    assert any("sd over seeds" in line for line in lines)


def test_of_forty_cells_the_best_and_the_base_are_shown() -> None:
    report = answered(grid(40))
    lines = printed(report)
    assert fits(lines)
    (more,) = [line for line in lines if line.startswith("… and ")]
    shown = row_names(lines, report)
    assert more == f"… and {41 - len(shown)} more in report.html"
    assert shown == [*(row.label for row in report.leaderboard[: len(shown) - 1]), "base"]
    assert len(shown) >= 4


def test_a_wider_terminal_has_more_columns_and_all_digits() -> None:
    report = read_report(PUBLISHED / "overoptimisation")
    narrow, wide = "\n".join(printed(report)), "\n".join(printed(report, 160))
    best = report.leaderboard[0].gold
    assert best is not None
    digits = f"{best.mean:.3f} ±"
    assert "LC win" not in narrow
    assert digits not in narrow
    assert all(words in wide for words in ("LC win", "KL", "seconds", digits))


def test_without_gold_or_policies_or_results() -> None:
    assert not any("gold" in line for line in printed(answered({BASE: 0.0, DPO: 1.0})))
    lost = replace(outcome(DPO, "policy"), status="failed", reason="loss is NaN")
    lines = printed(build_report(header(), [lost], [], []))
    assert lines == ["1 of 1 cells failed: dpo (loss is NaN)", f"report: {WHERE}"]


def test_a_failed_cell_is_said_and_the_others_stand() -> None:
    lost = replace(outcome(KTO, "policy"), status="failed", reason="loss is NaN " * 30)
    report = answered({BASE: 0.0, DPO: 1.0}, unfinished=[lost])
    lines = printed(report)
    assert fits(lines)
    (said,) = [line for line in lines if "failed" in line]
    assert said.startswith("1 of 3 cells failed: kto (loss is NaN")
    assert row_names(lines, report) == ["dpo", "base"]


def test_cells_without_a_result_are_named_with_the_command_that_makes_them() -> None:
    cells = (KTO, SIMPO, PPO, CellId("orpo"))
    missing = [replace(outcome(cell, "policy"), status="skipped", reason="train: not stored") for cell in cells]
    report = answered({BASE: 0.0, DPO: 1.0}, unfinished=missing)
    asked = report.model_copy(update={"command": "align-bench report mine.yaml --set 'seeds=[0, 1]'"})
    lines = printed(asked)
    assert fits(lines)
    said = "4 of 6 cells have no result: kto, simpo, ppo and more; kto (train: not stored)"
    assert said in " ".join(lines)
    assert "go on: align-bench run mine.yaml --set 'seeds=[0, 1]'" in lines
    assert lines[-2].startswith("±: "), "there is still room for it"
    assert said in " ".join(printed(report))
    assert not any("go on" in line for line in printed(report)), "a run has made what it could"


def test_what_never_ran_is_not_said_to_have_failed() -> None:
    sft = replace(outcome(CellId("sft"), "policy"), status="failed", reason="loss is NaN")
    waited = [
        replace(outcome(cell, "policy"), status="failed", reason="sft: train failed: loss is NaN", start=start)
        for cell, start in ((KTO, sft.cell), (SIMPO, KTO))
    ]
    own = replace(outcome(DPO, "policy"), status="failed", reason="no room is left", start=sft.cell)
    lines = printed(build_report(header(), [sft, *waited], [], []))
    assert "1 of 3 cells failed: sft (loss is NaN)" in lines
    assert "2 never ran, as what they start from failed: kto, simpo" in lines
    lines = printed(build_report(header(), [sft, own], [], []))
    assert not any("never ran" in line for line in lines), "it was trained, and failed by itself"


def test_ties_are_named() -> None:
    even = dict.fromkeys((BASE, DPO, KTO, SIMPO), 0.58)
    report = answered({BASE: 0.0, DPO: 1.0, KTO: 1.0, SIMPO: 1.0}, even)
    text = " ".join(" ".join(printed(report)).split())
    assert "tied first (0.583 each)" in text
    assert "None of these checkpoints (one seed) is shown to answer more prompts" in text


def test_hostile_names_stay_literal(shared_run: Run) -> None:
    report = shared_run.report()
    for width in (40, 80, 120):
        lines = printed(report, width, f"reports/{HOSTILE}/report.html")
        assert fits(lines, width)
        assert "\x1b" not in "".join(lines)
    wide = "\n".join(printed(report, 200))
    assert "[red]x[/red]" in wide
    named = answered({BASE: 0.0, CellId("[bold]dpo[/]"): 1.0, CellId("模型" * 30): 0.5})
    assert fits(printed(named))
    assert any("[bold]dpo[/]" in line for line in printed(named))


def test_names_that_are_cut_stay_distinct() -> None:
    names = ["a long name of a method, beta 0.1", "a long name of a method, beta 0.2", "short"]
    found = _cut(names, 12)
    assert len(set(found)) == 3
    assert found[2] == "short"
    assert all(cell_len(name) <= 12 for name in found)


def test_a_long_path_is_not_cut_out_of_the_screen() -> None:
    lines = printed(answered(grid(40)), where="x" * 150)
    assert fits(lines)
    assert "".join(lines[-2:]) == "report: " + "x" * 150


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("count", [1, 3, 7, 12])
def test_alarms_fold_before_the_verdict_does(count: int, width: int) -> None:
    kinds: tuple[AlarmKind, ...] = ("one-sided labels", "other data", "not finite", "nothing learned", "never ends")
    report = read_report(PUBLISHED / "assignment")
    alarms = [
        Alarm(kind=kind, about=f"cell {n}", found=0.3, threshold=0.1, sentence="much " * 60, cure=f"mend {n} " * 12)
        for n, kind in zip(range(count), kinds * 3, strict=False)
    ]
    console = Console(width=width)
    lines = [line.plain for line in last_screen(report.model_copy(update={"alarms": alarms}), "report.html", console)]
    assert len(lines) <= 22
    assert max(map(len, lines)) <= width
    assert sum(line.startswith("• ") and not line.startswith("• Alarm") for line in lines) >= len(report.summary)
    shown = sum(line.startswith("• Alarm") for line in lines)
    assert shown >= 1
    told = [line for line in lines if "more alarms in report.html" in line]
    assert told == ([] if shown == count else [f"• and {count - shown} more alarms in report.html"])
    assert any(line.lstrip().startswith("kto") for line in lines)
