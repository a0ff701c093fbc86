"""What a suite's trials came to: in words, and as the report's block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from align_bench.records import Cost, Estimate, Outcome
from align_bench.runner.costs import total
from align_bench.runner.outcomes import outcome
from align_bench.stages.stage import closure_of

if TYPE_CHECKING:
    from align_bench.planning.cells import Cell
    from align_bench.planning.graph import Graph
    from align_bench.planning.trials import Search
    from align_bench.runner.results import Results
    from align_bench.suite.models import Tune


def in_words(search: Search, results: Results) -> str:
    """What a method's trials came to, as one line."""
    name, trials = search.name, search.cells
    if not trials:
        return f"{name}: declares no range, or trains nothing; its given parameters are used"
    if search.kept is None:
        return f"{name}: {len(trials)} trials, not all ended; its given parameters stand in"
    best = _accuracies(search, results)[search.kept]
    if best.value is None:
        return f"{name}: none of {len(trials)} trials has a result; its given parameters are kept"
    kept = trials[search.kept]
    searched = kept.plugin.algorithm.searched if kept.plugin else {}
    setting = ", ".join(f"{key}={kept.all_parameters[key]}" for key in searched)
    return (
        f"{name}: of {len(trials)} trials number {search.kept} is kept, "
        f"accuracy {best.value:.3f} on {best.n} held-out pairs: {setting}"
    )


def block(tune: Tune, graph: Graph, results: Results) -> dict[str, Any]:
    """The report's `tuning`: every trial, the kept ones, the base beside them, and what all of it cost."""
    found = [results.facts(search.choice) for search in graph.searches.values() if search.choice is not None]
    choices = [facts for facts in found if facts is not None]
    searches = graph.searches.items()
    trials = {name: [(cell, outcome(cell, results)) for cell in search.cells] for name, search in searches}
    shared = _shared(graph, results)
    return {
        "settings": tune.model_dump(mode="json"),
        "held_out": next((facts["held_out"] for facts in choices), None),
        "base": next((facts["base"] for facts in choices if facts["base"] is not None), None),
        "methods": {
            name: {
                "trials": [
                    _trial(cell, ended, accuracy)
                    for (cell, ended), accuracy in zip(trials[name], _accuracies(search, results), strict=True)
                ],
                "kept": search.kept,
                "cost": _cost(total(_spent(trials[name]))),
            }
            for name, search in graph.searches.items()
        },
        "shared": _cost(total(shared)),
        "cost": _cost(total([*shared, *_spent([one for several in trials.values() for one in several])])),
    }


def _accuracies(search: Search, results: Results) -> list[Estimate]:
    """Of each trial on the held-out pairs; undefined for one that failed, or whose method's have not all ended."""
    facts = search.choice and results.facts(search.choice)
    known = facts["accuracies"] if facts else [None] * len(search.cells)
    return [Estimate(None) if one is None else Estimate(**one) for one in known]


def _spent(trials: Sequence[tuple[Cell, Outcome]]) -> list[Cost]:
    """Costs of the trials that finished; of equal settings, which are trained once, that of one."""
    costs = {cell.adapter and cell.adapter.address: ended.cost for cell, ended in trials}
    return [cost for cost in costs.values() if cost is not None]


def _shared(graph: Graph, results: Results) -> list[Cost]:
    """Costs of what trials share: the rows, and the base's log-probabilities of them."""
    own = {stage for cell in graph.trials for stage in cell.stages} | set(graph.tables.values())
    needed = closure_of(stage for cell in graph.trials for stage in cell.stages)
    shared = dict.fromkeys([*graph.held_out.values(), *(stage for stage in needed if stage not in own)])
    stored = [results.store.peek(stage.address) for stage in shared]
    return [artefact.cost for artefact in stored if artefact is not None]


def _trial(cell: Cell, ended: Outcome, accuracy: Estimate) -> dict[str, Any]:
    return {
        "cell": cell.id,
        "parameters": cell.all_parameters,
        "seed": cell.seed,
        "status": ended.status,
        "reason": ended.reason,
        "accuracy": asdict(accuracy),
        "cost": _cost(ended.cost),
    }


def _cost(cost: Cost | None) -> dict[str, Any] | None:
    return asdict(cost) if cost else None
