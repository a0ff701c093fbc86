"""Results of a suite's trials: as a line for the log, and as the report's block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from align_bench.records import Cost, Estimate, Outcome
from align_bench.report.schema import HeldOut, Trial, TunedMethod, Tuning
from align_bench.runner.costs import total
from align_bench.runner.outcomes import outcome
from align_bench.stages.stage import closure_of
from align_bench.stages.trials import TrialResults, trial_results

if TYPE_CHECKING:
    from align_bench.planning.cells import Cell
    from align_bench.planning.graph import Graph
    from align_bench.planning.tuning import Search
    from align_bench.runner.results import Results
    from align_bench.suite.models import Tune


def describe(search: Search, results: Results) -> str:
    """The result of a method's trials, as one line."""
    name, trials = search.name, search.cells
    if not trials:
        return f"{name}: no range declared, or nothing to train; its given parameters are used"
    if search.kept is None:
        return f"{name}: not all of its {len(trials)} trials have ended; its given parameters are used meanwhile"
    measure = search.choice.choose_by if search.choice else "accuracy"
    best = (_losses if measure == "loss" else _accuracies)(search, results)[search.kept]
    if best.value is None:
        return f"{name}: none of its {len(trials)} trials has a result; its given parameters are kept"
    kept = trials[search.kept].all_parameters
    tried = [trial.all_parameters for trial in trials]
    setting = ", ".join(f"{key}={kept[key]}" for key in kept if len({repr(one.get(key)) for one in tried}) > 1)
    return (
        f"{name}: kept trial {search.kept} (of {len(trials)} trials), "
        f"{measure} {best.value:.3f} on {best.n} held-out pairs: {setting}"
    )


def tuning_of(tune: Tune, graph: Graph, results: Results) -> Tuning:
    """What a report says of the trials: every one, the kept ones, the base beside them, and what all of it cost."""
    known = [_choice(search, results) for search in graph.searches.values()]
    choices = [choice for choice in known if choice is not None]
    trials = {
        name: [(cell, outcome(cell, results)) for cell in search.cells] for name, search in graph.searches.items()
    }
    shared = _shared(graph, results)
    return Tuning(
        settings=tune,
        held_out=next((HeldOut(**choice.held_out) for choice in choices), None),
        base=next((choice.base for choice in choices if choice.base is not None), None),
        methods=[
            TunedMethod(
                method=name,
                trials=[
                    _trial(*one, _training_loss(one[0], results))
                    for one in zip(
                        search.cells,
                        [ended for _, ended in trials[name]],
                        _accuracies(search, results),
                        _losses(search, results),
                        strict=True,
                    )
                ],
                kept=search.kept,
                cost=total(_spent(trials[name])),
            )
            for name, search in graph.searches.items()
        ],
        shared=total(shared),
        cost=total([*shared, *_spent([one for several in trials.values() for one in several])]),
    )


def _accuracies(search: Search, results: Results) -> list[Estimate]:
    """Of each trial on the held-out pairs; undefined for one that failed, or whose method's have not all ended."""
    choice = _choice(search, results)
    known = choice.accuracies if choice else [None] * len(search.cells)
    return [Estimate(None) if one is None else one for one in known]


def _losses(search: Search, results: Results) -> list[Estimate]:
    """The same of the Bradley–Terry loss; undefined of policies."""
    choice = _choice(search, results)
    known = choice.losses if choice and choice.losses else [None] * len(search.cells)
    return [Estimate(None) if one is None else one for one in known]


def _training_loss(cell: Cell, results: Results) -> float | None:
    """Mean over the last quarter of the steps; None of a trial without a result."""
    if cell.adapter is None or not results.has(cell.adapter):
        return None
    losses = [step["loss"] for step in results.load(cell.adapter) if "loss" in step]
    last = losses[-math.ceil(len(losses) / 4) :] if losses else []
    return sum(last) / len(last) if last else None


def _choice(search: Search, results: Results) -> TrialResults | None:
    """Which trial is kept; None where not all have ended."""
    facts = search.choice and results.facts(search.choice)
    return trial_results(facts) if facts else None


def _spent(trials: Sequence[tuple[Cell, Outcome]]) -> list[Cost]:
    """Costs of the trials that finished; of equal settings, which are trained once, that of one."""
    costs = {cell.adapter and cell.adapter.address: ended.cost for cell, ended in trials}
    return [cost for cost in costs.values() if cost is not None]


def _shared(graph: Graph, results: Results) -> list[Cost]:
    """Costs of what trials share: the rows, and the base's log-probabilities of them."""
    own = {stage for cell in graph.trials for stage in cell.stages} | set(graph.tables.values())
    needed = closure_of(stage for cell in graph.trials for stage in cell.stages)
    shared = dict.fromkeys([*graph.held_out.values(), *(stage for stage in needed if stage not in own)])
    stored = [results.store.get_unverified(stage.address) for stage in shared]
    return [artefact.cost for artefact in stored if artefact is not None]


def _trial(cell: Cell, ended: Outcome, accuracy: Estimate, loss: Estimate, training_loss: float | None) -> Trial:
    return Trial(
        cell=cell.id,
        parameters=cell.all_parameters,
        seed=cell.seed,
        status=ended.status,
        reason=ended.reason,
        accuracy=accuracy,
        loss=loss,
        training_loss=training_loss,
        cost=ended.cost,
    )
