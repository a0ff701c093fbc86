from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console

from align_bench.records import CellId, Cost, Estimate
from align_bench.report.render.markdown import render
from align_bench.report.render.terminal import comparison_tables
from align_bench.report.schema import HeldOut, Trial, TunedMethod, Tuning
from align_bench.report.tables.tuning import trials
from align_bench.suite.models import Tune

if TYPE_CHECKING:
    from tests.report.conftest import Run

COST = Cost(seconds=90.0, tokens=54_321, peak_bytes=2**20)


def tuning(hostile: str) -> Tuning:
    """The block of a suite with `tune`: two methods, one of them without ranges."""
    first = Trial(
        cell=CellId("dpo", trial=0),
        parameters={"beta": 0.1, "kind": hostile},
        seed=0,
        status="done",
        reason=None,
        accuracy=Estimate(0.75, 0.7, 0.8, 100),
        cost=COST,
    )
    second = Trial(
        cell=CellId("dpo", trial=1),
        parameters={"beta": 0.2, "kind": hostile},
        seed=0,
        status="failed",
        reason=hostile,
        accuracy=Estimate(None),
        cost=None,
    )
    return Tuning(
        settings=Tune(trials=2, search="grid", seed=3, holdout=0.1),
        held_out=HeldOut(pairs=100, prompts=99),
        base=Estimate(0.5, 0.4, 0.6, 100),
        methods=[
            TunedMethod(method=CellId("dpo"), trials=[first, second], kept=0, cost=COST),
            TunedMethod(method=CellId(hostile), trials=[], kept=None, cost=None),
        ],
        shared=None,
        cost=COST,
    )


def test_trials_are_shown_with_their_budget(run: Run) -> None:
    report = run.report().model_copy(update={"tuning": tuning(run.outcomes[5].cell.name)})
    printed = io.StringIO()
    Console(file=printed, width=100).print(*comparison_tables(report))
    assert max(map(len, printed.getvalue().splitlines())) <= 100
    found = trials(report)
    assert found.texts() == [
        ("dpo", "0", "beta=0.1", "0.750 ±0.050", "kept"),
        ("dpo", "1", "beta=0.2", "n/a", ""),
    ]
    captions = " ".join(found.captions)
    assert "2 trials (grid search, seed 3)" in captions
    assert "without 100 pairs of 99 prompts" in captions
    assert "The base, by the measure of policies: 0.500 ±0.100." in captions
    assert "nothing tuned: [red]x[/red]" in captions
    assert "1 min 30 s, 54,321 tokens" in captions
    text = render(report)
    assert "| trials of dpo | 1 min 30 s | 54,321 | 1.0 MiB |" in text
    assert "| dpo trial 1 | failed | " in text
    assert "<script>" not in text
