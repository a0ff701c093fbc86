"""Methods ranked on every measure, with bounds on their ranks."""

from __future__ import annotations

from collections.abc import Sequence

from align_bench.records import CellId
from align_bench.report.cells import Cell
from align_bench.report.comparisons import Measure, by_method, finished, measures
from align_bench.report.schema import Friedman, RankedMethod, Ranking
from align_bench.stats.bootstrap import resampled_means
from align_bench.stats.ranking import friedman, ranks
from align_bench.stats.seeds import MIN_SEEDS
from align_bench.suite.names import JUDGE_CELL


def rank_all(cells: Sequence[Cell], judges: Sequence[str]) -> list[Ranking]:
    """For each measure of at least two methods: their means over seeds and prompts, ranks and Friedman's test.

    A judge is no method. The bounds are over resampled prompts, and over seeds as well for methods with enough of them.
    The level is `method` when all but the base have enough; otherwise the ranks are those of the checkpoints at hand.
    Friedman's test takes prompts as its blocks and each method's mean over seeds, so it speaks of these checkpoints.

    Args:
        cells: all cells.
        judges: the reward judges.
    """
    done = [cell for cell in finished(cells) if cell.outcome.algorithm != JUDGE_CELL]
    bases = {cell.id for cell in done if cell.outcome.kind == "base"}
    found = [_ranked(measure, bases) for measure in measures(done, judges) if len(by_method(measure)) > 1]
    return [one for one in found if one is not None]


def _ranked(measure: Measure, bases: set[CellId]) -> Ranking | None:
    methods = by_method(measure)
    units = measure.common([cell for cells in methods.values() for cell in cells])
    clusters = measure.clusters(units)
    prompts = len(set(clusters))
    if prompts < 2:
        return None
    tables = [measure.table(cells, units) for cells in methods.values()]
    means = [float(table.mean()) for table in tables]
    places = ranks(means, resampled_means(tables, clusters))
    seeded = all(len(cells) >= MIN_SEEDS for cells in methods.values() if not set(cells) <= bases)
    rows = [
        RankedMethod(method=method, seeds=len(cells), value=mean, rank=place.rank, low=place.low, high=place.high)
        for (method, cells), mean, place in zip(methods.items(), means, places, strict=True)
    ]
    p = friedman([table.mean(axis=0) for table in tables], clusters)
    return Ranking(
        metric=measure.metric,
        kind=measure.kind,
        unit=measure.unit,
        level="method" if seeded else "checkpoint",
        n=len(units),
        prompts=prompts,
        friedman=Friedman(test="Friedman (prompts)", p=p, n=prompts),
        methods=sorted(rows, key=lambda row: row.rank),
    )
