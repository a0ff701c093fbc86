"""Methods ranked on every measure, with bounds on their ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from align_bench.records import Level
from align_bench.report.cells import Cell
from align_bench.report.comparisons import Measure, by_method, finished, measures
from align_bench.stats.bootstrap import resampled_means
from align_bench.stats.ranking import friedman, ranks
from align_bench.stats.seeds import MIN_SEEDS
from align_bench.suite.names import JUDGE_CELL


def rank_all(cells: Sequence[Cell], judges: Sequence[str]) -> list[dict[str, Any]]:
    """For each measure of at least two methods: their means over seeds and prompts, ranks and Friedman's test.

    A judge is no method. The bounds are over resampled prompts, and over seeds as well for methods with enough of them.
    The level is `method` when all but the base have enough; otherwise the ranks are those of the checkpoints at hand.
    Friedman's test takes prompts as its blocks and each method's mean over seeds, so it speaks of these checkpoints.

    Args:
        cells: all cells.
        judges: the reward judges.

    Returns:
        `metric`, `kind`, `unit`, `level`, `n` (units), `prompts`, `friedman` (`test`, `p`, `n`), and `methods`: a list
        of `name`, `seeds`, `value`, `rank`, `low`, `high`, the best first.
    """
    done = [cell for cell in finished(cells) if cell.outcome.algorithm != JUDGE_CELL]
    bases = {cell.name for cell in done if cell.outcome.kind == "base"}
    found = [_ranked(measure, bases) for measure in measures(done, judges) if len(by_method(measure)) > 1]
    return [one for one in found if one is not None]


def _ranked(measure: Measure, bases: set[str]) -> dict[str, Any] | None:
    methods = by_method(measure)
    units = measure.common([cell for cells in methods.values() for cell in cells])
    clusters = measure.clusters(units)
    if len(set(clusters)) < 2:
        return None
    tables = [measure.table(cells, units) for cells in methods.values()]
    means = [float(table.mean()) for table in tables]
    places = ranks(means, resampled_means(tables, clusters))
    seeded = all(len(cells) >= MIN_SEEDS for cells in methods.values() if not set(cells) <= bases)
    level: Level = "method" if seeded else "checkpoint"
    rows = [
        {"name": name, "seeds": len(cells), "value": mean, "rank": place.rank, "low": place.low, "high": place.high}
        for (name, cells), mean, place in zip(methods.items(), means, places, strict=True)
    ]
    prompts = len(set(clusters))
    p = friedman([table.mean(axis=0) for table in tables], clusters)
    return {
        "metric": measure.metric,
        "kind": measure.kind,
        "unit": measure.unit,
        "level": level,
        "n": len(units),
        "prompts": prompts,
        "friedman": {"test": "Friedman (prompts)", "p": p, "n": prompts},
        "methods": sorted(rows, key=lambda row: row["rank"]),
    }
