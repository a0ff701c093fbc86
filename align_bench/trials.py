"""A suite's trials in the store: the rows they are measured on, their scores, and the settings that they found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from align_bench.data.chat import save_table
from align_bench.evaluate.preference import SIDES
from align_bench.gather import Results
from align_bench.ledger import Meter, total
from align_bench.metrics.accuracy import accuracy
from align_bench.plan import Cell, Tuning
from align_bench.records import Cost, Estimate, Outcome, TokenTable
from align_bench.store import Store
from align_bench.tune import best, cut


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting of a method that was tried.

    Attributes:
        cell: what was trained.
        outcome: how it ended.
        accuracy: on the held-out pairs; undefined unless it is done.
        settled: whether running it again would change nothing: it is done, or failed for a reason that stays.
    """

    cell: Cell
    outcome: Outcome
    accuracy: Estimate
    settled: bool


Tried = Mapping[str, Sequence[Trial]]


def store_cut(results: Results, tuning: Tuning, store: Store) -> None:
    """Cut the stored training table into the rows that trials train on and those that they are measured on.

    Raises:
        DataError: when one part would be empty.
    """
    addresses = tuning.plan.tokens
    if all((address.kind, address.key) in store for address in addresses.values()):
        return
    assert results.suite.tune is not None
    apart = {row.prompt for row in results.table("val").rows}
    parts = cut(results.table("train").rows, apart, results.suite.tune)
    for address, rows in zip((addresses["train"], addresses["val"]), parts, strict=True):
        with store.scratch(address.kind, address.key) as folder:
            meter = Meter()
            save_table(folder / "tokens.parquet", TokenTable(tuple(rows), {"kept": len(rows)}))
            facts = {"rows": len(rows), "prompts": len({row.prompt for row in rows})}
            store.put(address.kind, address.key, folder, meter.cost(0, 0.0), facts)


def measured_accuracy(results: Results, cell: Cell) -> Estimate:
    """Accuracy of a finished trial, or of the base, on the held-out pairs; the same measure for all of its kind.

    A reward model is right where `r_w > r_l`; a policy, and the base, where `s̄_w > s̄_l`: where it would itself prefer
    the chosen answer, token for token. Ties count ½. No scale of the method's own enters. The log-ratio to the base
    would not do: its sign is as right after one small step as after many, so a policy that hardly learnt may win.

    Args:
        results: of the trials' plan.
        cell: the trial, or the base.

    Raises:
        MissingResultError: when its log-probabilities or scores, or the held-out rows, are not stored.
    """
    assert cell.val is not None, "a trial trains"
    rows, columns = results.table("val").rows, results.columns(cell.val)
    chosen, rejected = (columns[side].tolist() for side in SIDES)
    if cell.kind != "reward":
        chosen = [logp / len(row.chosen or ()) for logp, row in zip(chosen, rows, strict=True)]
        rejected = [logp / len(row.rejected or ()) for logp, row in zip(rejected, rows, strict=True)]
    return accuracy(chosen, rejected)


def kept(trials: Sequence[Trial]) -> int | None:
    """The number of the trial whose setting is kept, the earlier one of equals; None until all of them ended.

    It is 0, the method's own parameters, when none has a result.
    """
    if not trials or any(trial.outcome.status == "skipped" for trial in trials):
        return None
    return best([trial.accuracy.value for trial in trials])


def found(tried: Tried) -> dict[str, Mapping[str, Any]]:
    """A method's cell → the parameters that its trials found, for those that have ended."""
    numbers = {name: kept(trials) for name, trials in tried.items()}
    return {name: tried[name][number].cell.all_parameters for name, number in numbers.items() if number is not None}


def untuned(tried: Tried) -> dict[str, str]:
    """A method's cell → why its parameters are not found yet, for those with trials that have not ended."""
    missing = {name: [trial for trial in trials if trial.outcome.status == "skipped"] for name, trials in tried.items()}
    return {
        name: f"not tuned: {trials[0].cell.id}: {trials[0].outcome.reason}"
        for name, trials in missing.items()
        if trials
    }


def in_words(name: str, trials: Sequence[Trial]) -> str:
    """What a method's trials came to, as one line."""
    if not trials:
        return f"{name}: declares no range, or trains nothing; its given parameters are used"
    number = kept(trials)
    if number is None:
        return f"{name}: {len(trials)} trials, not all ended; its given parameters stand in"
    chosen = trials[number]
    if chosen.accuracy.value is None:
        return f"{name}: none of {len(trials)} trials has a result; its given parameters are kept"
    searched = chosen.cell.plugin.algorithm.searched if chosen.cell.plugin else {}
    setting = ", ".join(f"{key}={chosen.cell.all_parameters[key]}" for key in searched)
    return (
        f"{name}: of {len(trials)} trials number {number} is kept, "
        f"accuracy {chosen.accuracy.value:.3f} on {chosen.accuracy.n} held-out pairs: {setting}"
    )


def block(results: Results, tuning: Tuning, tried: Tried) -> dict[str, Any]:
    """The report's `tuning`: every trial, the kept ones, the base beside them, and what all of it cost.

    Args:
        results: of the trials' plan.
        tuning, tried: the trials, and how they ended.
    """
    assert results.suite.tune is not None
    store = results.store
    shared = _shared(tuning, store)
    base = tuning.plan.base
    measured = base.val is not None and (base.val.kind, base.val.key) in store
    held = store.get(tuning.plan.tokens["val"].kind, tuning.plan.tokens["val"].key)
    return {
        "settings": results.suite.tune.model_dump(mode="json"),
        "held_out": None if held is None else {"pairs": held.facts["rows"], "prompts": held.facts["prompts"]},
        "base": asdict(measured_accuracy(results, base)) if measured else None,
        "methods": {
            name: {
                "trials": [_trial(trial) for trial in trials],
                "kept": kept(trials),
                "cost": _cost(total(_spent(trials))),
            }
            for name, trials in tried.items()
        },
        "shared": _cost(total(shared)),
        "cost": _cost(total([*shared, *_spent([trial for trials in tried.values() for trial in trials])])),
    }


def _spent(trials: Sequence[Trial]) -> list[Cost]:
    """Costs of the trials that finished; of equal settings, which are trained once, that of one."""
    costs = {trial.cell.adapter: trial.outcome.cost for trial in trials}
    return [cost for cost in costs.values() if cost is not None]


def _shared(tuning: Tuning, store: Store) -> list[Cost]:
    """Costs of what trials share: the rows, and the base's log-probabilities of them."""
    references = {address for cell in tuning.plan.cells for address in (cell.reference, cell.mismatched)}
    every = [*tuning.plan.tokens.values(), *sorted(references, key=str), tuning.plan.base.val]
    stored = [store.get(address.kind, address.key) for address in every if address is not None]
    return [artefact.cost for artefact in stored if artefact is not None]


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "cell": trial.cell.id,
        "parameters": trial.cell.all_parameters,
        "seed": trial.cell.seed,
        "status": trial.outcome.status,
        "reason": trial.outcome.reason,
        "accuracy": asdict(trial.accuracy),
        "cost": _cost(trial.outcome.cost),
    }


def _cost(cost: Cost | None) -> dict[str, Any] | None:
    return asdict(cost) if cost else None
