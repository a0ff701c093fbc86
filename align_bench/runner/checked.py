"""What is looked for in a split's rows before anything is trained on them, for alarms. Needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align_bench.data.check_rows import distance, distance_of_halves, label_sides, prompts_in
from align_bench.report.schema import CheckedRows
from align_bench.suite.names import JUDGE_CELL

if TYPE_CHECKING:
    from align_bench.planning.graph import Graph
    from align_bench.planning.inputs import Prepared
    from align_bench.runner.results import Results


def checked_rows(split: str, prepared: Prepared, graph: Graph, results: Results) -> CheckedRows:
    """What is found in the rows of a split, which are stored as tokens.

    Args:
        split: `train`, `val`, or a judge's cell.
        prepared, graph, results: the suite, and what is stored of it.

    Raises:
        DataError: a file is missing, or was changed during the run.
    """
    rows, train = prepared.inputs.rows[split], results.load(graph.tables["train"]).rows
    found, own = results.preferences(rows), results.load(graph.tables[split]).rows
    sides = label_sides(found)
    of_judge = split.startswith(JUDGE_CELL)
    return CheckedRows(
        labels=sides.labels if sides else None,
        labels_first=sides.first if sides else None,
        prompts_in_train=None if split == "train" else prompts_in(own, train),
        distance=distance(own, train) if of_judge else None,
        distance_by_chance=distance_of_halves(train) if of_judge else None,
    )
