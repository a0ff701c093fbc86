"""What is looked for in a split's rows, for alarms and for the report's section on data. Needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align_bench.data.check_rows import distance, distance_of_halves, label_sides, prompts_in, with_prompts_of
from align_bench.data.doctor import find_repeats, scripts
from align_bench.data.summary import summarise
from align_bench.report.schema import CheckedRows, ExaminedRows
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


def examined_rows(split: str, prepared: Prepared, results: Results) -> ExaminedRows:
    """What is found in the texts of a split's rows.

    Args:
        split: `train`, `val`, or a judge's cell.
        prepared, results: the suite, and what reads its rows.

    Raises:
        DataError: a file is missing, or was changed during the run.
    """

    def shared(other: str) -> int | None:
        if split == other:
            return None
        others = results.preferences(prepared.inputs.rows[other]).rows
        return len(with_prompts_of(found.rows, others))

    found = results.preferences(prepared.inputs.rows[split])
    summary, repeats = summarise(found), find_repeats(found.rows)
    return ExaminedRows(
        rows=len(found.rows),
        duplicates=len(repeats.duplicates),
        near_duplicates=len(repeats.near_duplicates),
        contradictions=len(repeats.contradictions),
        repeated_prompts=len(repeats.prompts),
        prompts_in_train=shared("train"),
        prompts_in_val=shared("val"),
        pairs=summary.pairs,
        longer_preferred=summary.longer_pairs,
        equally_long=summary.equally_long_pairs,
        prompt_words=summary.prompt.median if summary.prompt else None,
        chosen_words=summary.chosen.median if summary.chosen else None,
        rejected_words=summary.rejected.median if summary.rejected else None,
        scripts=scripts(found.rows),
    )
