"""Methods ranked on every measure, with the bounds that the comparisons set to their ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from align_bench.records import CellId, Comparison, Level
from align_bench.report.cells import Cell
from align_bench.report.comparisons import Entrants, Measure, by_method, entrants
from align_bench.report.decision import decision
from align_bench.report.schema import Friedman, RankedMethod, Ranking
from align_bench.stats.paired import floored
from align_bench.stats.ranking import friedman, ranks
from align_bench.stats.seeds import MIN_SEEDS


def rank_all(cells: Sequence[Cell], every: Sequence[Measure], comparisons: Sequence[Comparison]) -> list[Ranking]:
    """For each measure of at least two methods: their means over seeds and prompts, ranks and Friedman's test.

    A judge is no method. The level is `method` when all but the base have enough seeds; otherwise the ranks are those
    of the checkpoints at hand. A rank is bounded by the decisions of that level: a method stands below those that were
    shown higher, and above those shown lower. With a second seed but no third there are no bounds. Friedman's test
    takes prompts as its blocks and each method's mean over seeds, so it speaks of these checkpoints.

    Args:
        cells: all cells.
        every: their measures.
        comparisons: what was decided.
    """
    who = Entrants.of(entrants(cells))
    found = [_ranked(measure, who, comparisons) for measure in every if len(by_method(measure)) > 1]
    return [one for one in found if one is not None]


def _ranked(measure: Measure, who: Entrants, comparisons: Sequence[Comparison]) -> Ranking | None:
    methods = by_method(measure)
    units = measure.common([cell for cells in methods.values() for cell in cells])
    clusters = measure.clusters(units)
    prompts = len(set(clusters))
    if prompts < 2:
        return None
    tables = [measure.table(cells, units) for cells in methods.values()]
    means = [float(table.mean()) for table in tables]
    counts = [len(cells) for method, cells in methods.items() if who.trained(method, cells)]
    level: Level = "method" if all(count >= MIN_SEEDS for count in counts) else "checkpoint"
    decided = level == "method" or all(count == 1 for count in counts)
    found = [one for one in comparisons if one.metric == measure.metric and one.level == level]
    places = ranks(means, _higher(list(methods), found) if decided else None)
    rows = [
        RankedMethod(method=method, seeds=len(cells), value=mean, rank=place.rank, low=place.low, high=place.high)
        for (method, cells), mean, place in zip(methods.items(), means, places, strict=True)
    ]
    p = floored(friedman([table.mean(axis=0) for table in tables], clusters))
    return Ranking(
        metric=measure.metric,
        kind=measure.kind,
        unit=measure.unit,
        level=level,
        n=len(units),
        prompts=prompts,
        friedman=Friedman(test="Friedman (prompts)", p=p, n=prompts),
        methods=sorted(rows, key=lambda row: row.rank),
    )


def _higher(methods: Sequence[CellId], comparisons: Sequence[Comparison]) -> npt.NDArray[np.bool_]:
    """Which of the methods were shown to be higher than which, shape [methods, methods]."""
    places = {method: place for place, method in enumerate(methods)}
    found = np.zeros((len(methods), len(methods)), dtype=bool)
    for one in comparisons:
        if one.a.method in places and one.b.method in places:
            a, b = places[one.a.method], places[one.b.method]
            if decision(one) == "higher":
                found[a, b] = True
            elif decision(one) == "lower":
                found[b, a] = True
    return found
