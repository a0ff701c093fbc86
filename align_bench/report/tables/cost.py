"""What cells and trials cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align_bench.records import CellId, Cost
from align_bench.report import formatting
from align_bench.report.formatting import one_line
from align_bench.report.tables.section import Column, Section, text
from align_bench.report.tables.values import Value, shown

if TYPE_CHECKING:
    from align_bench.report.schema import Report

# How the table calls the metrics of the Pareto sets.
PARETO = {
    "judge_reward_mean": "judge",
    "gold_accuracy": "gold",
    "accuracy": "accuracy",
    "accuracy_gold_choice": "acc. (gold)",
}
OPERATIONS = (
    "TFLOP: 10¹² operations that the passes needed (shared prefixes counted once, no padding); % of peak: operations "
    "per second, as a share of what a large matrix product reached on the device in the same run (n/a: that was "
    "measured beside other work)."
)


def costs(report: Report) -> Section:
    """What each finished cell cost and trained, what the trials cost, and where no other cell buys more for less."""
    spent: list[tuple[str, CellId | None, Cost | None]] = [
        (found.name, found.cell, found.cost) for found in report.results
    ]
    if tuned := report.tuning:
        spent += [(f"trials of {found.method}", None, found.cost) for found in tuned.methods]
        spent += [("shared by trials", None, tuned.shared), ("all trials", None, tuned.cost)]
    known = [(what, cell, cost) for what, cell, cost in spent if cost is not None]
    counted = any(cost.flops is not None for _, _, cost in known)
    trained = {found.cell: found.trainable for found in report.results}
    rows = [
        (
            one_line(what),
            *_cost(cost, counted=counted),
            shown(None if cell is None else trained[cell], formatting.count),
            "" if cell is None else _unbeaten(report, cell),
        )
        for what, cell, cost in known
    ]
    headings = ["wall time", "tokens", "peak memory", *(["TFLOP", "% of peak"] if counted else [])]
    captions = [
        "What cells share (loading the base, reference log-probabilities, an online method's reward model) is charged "
        "to none of them.",
        "Pareto: no other reward model, or no other policy, is as good on this metric for as few seconds.",
        *([OPERATIONS] if counted else []),
    ]
    columns = [text("cell"), *map(Column, headings), Column("trainable parameters", optional=True), text("Pareto")]
    return Section("Cost", columns, rows, captions if rows else [], chapter="cost")


def _cost(cost: Cost, *, counted: bool) -> list[Value]:
    cells: list[Value] = [
        shown(cost.seconds, formatting.duration),
        shown(cost.tokens, formatting.count),
        shown(cost.peak_bytes, formatting.size),
    ]
    if counted:
        cells += [shown(cost.flops, formatting.tera), shown(cost.utilisation, formatting.percent)]
    return cells


def _unbeaten(report: Report, cell: CellId) -> str:
    """The metrics in whose Pareto set a cell is."""
    return ", ".join(PARETO.get(one.metric, one.metric) for one in report.pareto if cell in one.cells)
