"""Progress of a whole run: what its stages were expected to take, and at what pace they did."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from align_bench.cli.progress import Whole, progress_bars


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


EXPECTED = {("dpo", "train"): 60.0, ("dpo", "generate"): 20.0, ("kto", "train"): 120.0}


def test_the_share_is_that_of_the_expected_seconds() -> None:
    whole = Whole(EXPECTED, Clock())
    assert whole.share == 0
    whole.reach("dpo", "train", 0.5)
    assert whole.share == pytest.approx(30 / 200)
    whole.reach("dpo", "train", 1.0)
    whole.reach("val", "tokens", 1.0)  # of which nothing was expected
    assert whole.share == pytest.approx(60 / 200)


def test_what_is_left_goes_at_the_pace_so_far() -> None:
    clock = Clock()
    whole = Whole(EXPECTED, clock)
    assert whole.seconds_left == 200
    clock.now = 120.0  # twice as slow as expected
    whole.reach("dpo", "train", 1.0)
    assert whole.seconds_left == pytest.approx(140 * 2)


def test_the_first_seconds_say_nothing_of_the_pace() -> None:
    clock = Clock()
    whole = Whole(EXPECTED, clock)
    clock.now = 1.0
    whole.reach("dpo", "train", 0.001)
    assert whole.seconds_left == pytest.approx(200 - 0.06)


def test_a_stage_goes_at_the_pace_of_those_of_its_label_from_their_first_steps_on() -> None:
    clock = Clock()
    whole = Whole(EXPECTED, clock)
    clock.now = 50.0  # the base is loaded
    whole.reach("dpo", "train", 0.1)
    assert whole.seconds_left == pytest.approx(194)
    clock.now = 53.0  # 3 s for a tenth, in place of 6
    whole.reach("dpo", "train", 0.2)
    assert whole.seconds_left == pytest.approx((0.8 * 60 + 120 + 20) / 2)
    clock.now = 77.0
    whole.reach("dpo", "train", 1.0)
    clock.now = 137.0  # answers take three times as long as was thought, which says nothing of trainings
    whole.reach("dpo", "generate", 1.0)
    assert whole.seconds_left == pytest.approx(120 / 2)


def test_a_resumed_training_is_no_faster_for_what_was_done_before() -> None:
    clock = Clock()
    whole = Whole({("dpo", "train"): 100.0}, clock)
    clock.now = 1.0
    whole.reach("dpo", "train", 0.5)
    clock.now = 11.0
    whole.reach("dpo", "train", 0.6)
    assert whole.seconds_left == pytest.approx(40)


def shown(expected: dict[tuple[str, str], float]) -> str:
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    with progress_bars(console, expected) as progress:
        with progress.stage("[red]dpo", "train") as update:
            update(1, 2, "loss 0.69")
            progress._bars.refresh()  # as ten times a second
        progress.log("[bold]said")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_both_bars_are_shown_and_foreign_text_stays_literal() -> None:
    text = shown({("[red]dpo", "train"): 60.0, ("kto", "train"): 180.0})
    assert "whole run, %" in text
    assert "25/100" in text
    assert "[red]dpo: train" in text
    assert "loss 0.69" in text
    assert "[bold]said" in text


def test_bars_fit_80_columns_and_go_with_their_stages() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    cells = [f"ppo[kl_coef=0.02,reward=poe_rm]#{seed}" for seed in range(40)]
    with progress_bars(console, {(cell, "train"): 10.0 for cell in cells}) as progress:
        for cell in cells:
            with progress.stage(cell, "reference log-probs") as update:
                update(1, 2, "loss 0.693, rewards/margins 0.12345")
                progress._bars.refresh()
            progress.log(f"{cell}: done in 0.1 s")
    assert isinstance(console.file, io.StringIO)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "\r", console.file.getvalue())
    drawn = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
    assert max(map(len, drawn)) <= 80
    assert any(": reference log-probs" in line and "#39" in line and "loss" in line for line in drawn)
    stayed = [line for line in drawn if "done in" in line]
    assert stayed == [f"{cell}: done in 0.1 s" for cell in cells]
    frame = console.file.getvalue().rpartition("#38: done in")[2]
    assert "#38" not in frame.partition("\n")[2]  # the bars of finished stages are gone


def test_a_run_with_nothing_to_do_has_no_bar() -> None:
    assert "whole run" not in shown({})
