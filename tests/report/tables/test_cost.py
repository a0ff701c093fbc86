from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from align_bench.report.tables.cost import costs

if TYPE_CHECKING:
    from tests.report.conftest import Run


def test_costs_show_operations_where_they_were_counted(run: Run) -> None:
    report = run.report()
    found = costs(report)
    headings = [column.heading for column in found.columns]
    assert headings == [
        "cell",
        "wall time",
        "tokens",
        "peak memory",
        "TFLOP",
        "% of peak",
        "trainable parameters",
        "Pareto",
    ]
    row = next(row for row in found.texts() if row[0] == "dpo")
    assert row[1:-2] == ("12 min 34 s", "12,345", "3.0 GiB", "2.5", "12.5%")
    uncounted = [
        result.model_copy(update={"cost": result.cost and replace(result.cost, flops=None, utilisation=None)})
        for result in report.results
    ]
    found = costs(report.model_copy(update={"results": uncounted}))
    assert [column.heading for column in found.columns] == [*headings[:4], *headings[6:]]
    assert not any("TFLOP" in caption for caption in found.captions)
