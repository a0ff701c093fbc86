"""The base and every policy on the test pairs, and each policy against the base there."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from align_bench.metrics.accuracy import wins_of
from align_bench.metrics.clusters import cluster_codes
from align_bench.metrics.finite import finite
from align_bench.records import Outcome
from align_bench.report.cells import Cell, Column, gather, logp_mean
from align_bench.report.results import metrics
from align_bench.report.rows import ScoreRow
from align_bench.report.schema import Tested
from align_bench.stats.paired import floored, holm, paired_shares


def on_test(outcomes: Sequence[Outcome], rows: Sequence[ScoreRow]) -> list[Tested]:
    """What each cell was measured to be, and its accuracy by mean log-probability less the base's.

    Args:
        outcomes: every cell of the suite.
        rows: rows of `test_scores.parquet`.
    """
    cells = [cell for cell in gather(outcomes, rows, []) if cell.scores]
    base = next((cell for cell in cells if cell.outcome.kind == "base"), None)
    found = [_tested(cell, base) for cell in cells]
    adjusted = holm([one.p for one in found])
    return [one.model_copy(update={"p_holm": p}) for one, p in zip(found, adjusted, strict=True)]


def _tested(cell: Cell, base: Cell | None) -> Tested:
    measured = metrics(cell, None, [])
    found = Tested(
        cell=cell.id,
        accuracy=measured.accuracy,
        accuracy_logp_mean=measured.accuracy_logp_mean,
        accuracy_logratio=measured.accuracy_logratio,
        reward_mean=measured.reward_mean,
        reward_std=measured.reward_std,
    )
    if base is None or cell is base:
        return found
    own, others = _margins(cell), _margins(base)
    shared = [row for row in cell.scores if row.pair in others]
    prompts = cluster_codes([row.prompt for row in shared], len(shared))
    ours, theirs, codes = finite([own[row.pair] for row in shared], [others[row.pair] for row in shared], prompts)
    test, difference = paired_shares(wins_of(ours), wins_of(theirs), codes.tolist())
    return found.model_copy(
        update={
            "test": test,
            "difference": difference.difference,
            "low": difference.low,
            "high": difference.high,
            "p": floored(difference.p),
            "n": difference.n,
        }
    )


def _margins(cell: Cell) -> dict[Hashable, float | None]:
    """Pair → mean log-probability per token of the chosen answer less that of the rejected one."""
    sides: list[Column] = [[logp_mean(answer) for answer in side] for side in cell.sides]
    return {
        row.pair: None if chosen is None or rejected is None else chosen - rejected
        for row, chosen, rejected in zip(cell.scores, *sides, strict=True)
    }
