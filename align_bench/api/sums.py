"""Sums of losses: several methods' losses on the same answers, each with a weight and with parameters of its own.

A sum is a method like any other. Its record holds the union of what its terms read, so that all share one forward pass,
and each term is given the part of it that it reads. Its hyper-parameters are `TERM.weight` and `TERM.PARAMETER`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import or_
from typing import TYPE_CHECKING, cast

import annotated_types

from align_bench.api.algorithms import Algorithm
from align_bench.api.batches import OF_THE_BATCH, Batch, Running, fields_of
from align_bench.api.hyperparameters import Parameter, Range
from align_bench.api.loss import Loss
from align_bench.api.offline import ClosedForm, FallsWith, OfflineAlgorithm
from align_bench.api.readings import OfflineData, Reading, as_record
from align_bench.api.recipes import Recipe
from align_bench.errors import PluginError

if TYPE_CHECKING:
    from torch import Tensor

    from align_bench.records import Parameters, Scalar

WEIGHT = "weight"  # of a term, beside its parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class SumOfLosses(OfflineAlgorithm):
    """A weighted sum of losses, which a suite made up.

    Attributes:
        terms: name → method, in the order of their names, so that the order in which a suite lists them says nothing.
    """

    terms: Mapping[str, OfflineAlgorithm]

    @property
    def arguments(self) -> tuple[str, ...]:
        """Its batch, and the hyper-parameters."""
        return ("batch", *self.parameters)

    def weights(self, parameters: Parameters) -> dict[str, float]:
        """Term → its weight."""
        return {name: cast("float", parameters[f"{name}.{WEIGHT}"]) for name in self.terms}

    def of_term(self, name: str, parameters: Parameters) -> dict[str, Scalar]:
        """The hyper-parameters of a term, by the names that it gives them."""
        return {each: parameters[f"{name}.{each}"] for each in self.terms[name].parameters}

    def remembered(self, before: Running, batch: Batch, parameters: Parameters) -> dict[str, float]:
        """What all terms remember, each under its own name; see `OfflineAlgorithm.remembered`."""
        return {
            f"{name}.{key}": value
            for name, term in self.terms.items()
            if term.running is not None
            for key, value in term.remembered(
                _under(name, before), read_as(term.reading.of_rows, batch), self.of_term(name, parameters)
            ).items()
        }

    def closed_form(self, parameters: Parameters) -> ClosedForm | None:
        """The weighted sum of the terms' closed forms; None where one of them has none."""
        found = [0.0, 0.0]
        for name, weight in self.weights(parameters).items():
            form = self.terms[name].closed_form(self.of_term(name, parameters))
            if form is None:
                return None
            sides = form if isinstance(form, tuple) else (form, form)
            if self.data == "pairs" and self.terms[name].data == "unpaired":
                sides = (sum(sides), sum(sides))
            found = [total + weight * side for total, side in zip(found, sides, strict=True)]
        return (found[0], found[1]) if self.data == "unpaired" else found[0]

    def reads_rejected(self, parameters: Parameters) -> bool:
        """Whether rejected answers move any term."""
        return any(
            term.data != "chosen" and term.reads_rejected(self.of_term(name, parameters))
            for name, term in self.terms.items()
        )

    def term_losses(self, batch: Batch, parameters: Parameters) -> dict[str, Loss]:
        """Each term's own loss of the rows that it reads, without its weight."""
        found = {}
        for name, term in self.terms.items():
            record = read_as(term.reading, batch, running=_under(name, getattr(batch, "running", {})))
            found[name] = term(record, **self.of_term(name, parameters))
        return found


def summed(name: str, terms: Mapping[str, Algorithm]) -> SumOfLosses:
    """The method that is the weighted sum of some methods' losses.

    The data are the terms' own where all read the same. Else they are pairs: a term of chosen answers reads the chosen
    ones, and a term of single answers reads both, and its loss of a pair is the sum of its losses of the two. Where it
    estimates the KL divergence, as kto does, it does so over both answers of all pairs of the effective batch.

    Args:
        name: what it is called.
        terms: name → method; two or more.

    Raises:
        PluginError: when they cannot be summed.
    """
    if len(terms) < 2:
        raise PluginError(f"{name} has {len(terms)} term, expected two or more", fix="list the method itself")
    losses = {each: _summable(name, each, terms[each]) for each in sorted(terms)}
    kinds = {term.data for term in losses.values()}
    data: OfflineData = cast("OfflineData", kinds.pop()) if len(kinds) == 1 else "pairs"
    moving = _moving(name, losses)
    readings = [term.reading for term in losses.values()]
    reading = replace(reduce(or_, readings), data=data)
    rewarding = [term for term in losses.values() if term.data != "chosen"] or list(losses.values())
    parameters = _parameters(losses)
    rates = _common([term.learning_rate_range for term in losses.values()])

    def function(batch: Batch, **given: Scalar) -> Loss:
        return _weighted(found, batch, given)

    found = SumOfLosses(
        name=name,
        function=function,
        reading=reading,
        data=reading.data,
        reference=reading.reference,
        paper=", ".join(dict.fromkeys(term.paper for term in losses.values())),
        learning_rate=max(min(term.learning_rate or 0.0 for term in losses.values()), rates.low if rates else 0.0),
        learning_rate_range=rates,
        reward=" + ".join(f"{term.name}.{WEIGHT} × ({term.reward})" for term in rewarding),
        parameters=parameters,
        doc=_doc(losses, parameters),
        normalised=_agreed({term.normalised for term in losses.values()}),
        falls_with=_falls_with({term.falls_with for term in losses.values()}),
        running=None if all(term.running is None for term in losses.values()) else _held_by_its_terms,
        moving_reference=None if moving is None else partial(_sync_steps, moving),
        terms=losses,
    )
    return found


def read_as(reading: Reading, batch: Batch, *, running: Running | None = None) -> Batch:
    """What a term reads, of a batch that holds it: its own part of pairs, or of single answers.

    Args:
        reading: what the term reads.
        batch: what the sum reads.
        running: what the term remembers.
    """
    values = fields_of(batch)
    whole: Batch | None = values.get("batch") if reading.batch else None  # type: ignore[assignment]
    if reading.data != "pairs" and "rejected" in values:
        rows = len(batch if whole is None else whole)
        values = _as_chosen(values) if reading.data == "chosen" else _as_single(values, rows)
    if whole is not None:
        values |= {"batch": read_as(reading.of_rows, whole), "running": running or {}}
    return as_record(reading, values)


def _as_chosen(values: Mapping[str, object]) -> dict[str, object]:
    """The chosen answers of pairs."""
    return {"logps": values["chosen"], "tokens": values["chosen_tokens"], "ref_logps": values.get("ref_chosen")}


def _as_single(values: Mapping[str, object], rows: int) -> dict[str, object]:
    """Both answers of pairs: all chosen ones, then all rejected ones.

    Args:
        values: the fields of pairs.
        rows: pairs in the whole effective batch.
    """
    import torch

    def both(names: str) -> Tensor:
        return torch.cat([cast("Tensor", values[names.format(side)]) for side in ("chosen", "rejected")])

    chosen = cast("Tensor", values["chosen"])
    found: dict[str, object] = {
        "logps": both("{}"),
        "tokens": both("{}_tokens"),
        "desirable": torch.arange(2 * len(chosen), device=chosen.device) < len(chosen),
    }
    if "ref_chosen" in values:
        found["ref_logps"] = both("ref_{}")
    found |= {name: values[name] for name in OF_THE_BATCH if name in values}
    if "place" in values:
        place = cast("Tensor", values["place"])
        found["place"] = torch.cat([place, place + rows])
    return found


def _weighted(algorithm: SumOfLosses, batch: Batch, parameters: Parameters) -> Loss:
    """The weighted sum of values, and of rewards; each term's own values and metrics are logged under its name."""
    rows = len(batch)
    values: Tensor | None = None
    rewards: dict[str, Tensor] = {}
    metrics: dict[str, Tensor] = {}
    weights = algorithm.weights(parameters)
    losses = algorithm.term_losses(batch, parameters)
    only_chosen = all(algorithm.terms[name].data == "chosen" for name in losses)
    for name, loss in losses.items():
        term, weight = algorithm.terms[name], weights[name]
        by_row = {"loss": loss.values, **loss.metrics}
        own = {field: loss.rewards_in(field) for field in term.reward_fields}
        if algorithm.data == "pairs" and term.data == "unpaired":  # chosen answers, then rejected ones
            by_row = {key: value[:rows] + value[rows:] for key, value in by_row.items()}
            by_row |= {key: by_row[key] / 2 for key in loss.metrics}
            own = {"chosen_rewards": own["rewards"][:rows], "rejected_rewards": own["rewards"][rows:]}
        values = weight * by_row["loss"] if values is None else values + weight * by_row["loss"]
        if term.data != "chosen" or only_chosen:
            for field, reward in own.items():
                rewards[field] = weight * reward + rewards[field] if field in rewards else weight * reward
        metrics |= {f"{name}.{key}": value for key, value in by_row.items()}
    assert values is not None, "there are two terms or more"
    return Loss(values, **rewards, metrics=metrics)  # type: ignore[arg-type]


def _summable(name: str, each: str, term: Algorithm) -> OfflineAlgorithm:
    """A term, if it is a loss of given answers of a policy.

    Raises:
        PluginError: when it is not.
    """
    why = ""
    if isinstance(term, SumOfLosses):
        why = "is a sum itself"
    elif isinstance(term, Recipe):
        why = "takes the whole training"
    elif term.data == "candidates":
        why = "trains nothing"
    elif not isinstance(term, OfflineAlgorithm):
        why = "learns from answers that the policy writes itself"
    elif term.kind == "reward":
        why = "trains a reward model"
    elif WEIGHT in term.parameters:
        why = f"has a parameter called {WEIGHT} itself"
    if why:
        raise PluginError(
            f"{name}: {each} {why}; the terms of a sum are losses on given answers, such as dpo, bco and sft"
        )
    assert isinstance(term, OfflineAlgorithm), "no other is left"
    return term


def _moving(name: str, terms: Mapping[str, OfflineAlgorithm]) -> OfflineAlgorithm | None:
    """The term whose reference moves; None where none does.

    Raises:
        PluginError: another term reads a reference too: they would need one each.
    """
    for each, term in terms.items():
        others = [one for one, other in terms.items() if one != each and other.reading.reference]
        if term.moving_reference is not None and others:
            raise PluginError(
                f"{name}: the reference of {each} moves, and {others[0]} reads a reference too; the terms of a sum "
                "share one",
                fix=f"sum {each} with methods that read none, such as sft, or take dpo in its place",
            )
    return next((term for term in terms.values() if term.moving_reference is not None), None)


def _sync_steps(term: OfflineAlgorithm, **parameters: Scalar) -> int:
    """What a term whose reference moves declares, by the names that the sum gives its hyper-parameters."""
    steps = term.sync_steps({each: parameters[f"{term.name}.{each}"] for each in term.parameters})
    assert steps is not None, "its reference moves"
    return steps


def _parameters(terms: Mapping[str, OfflineAlgorithm]) -> dict[str, Parameter]:
    """Each term's weight and hyper-parameters, under names that tell them apart."""
    found = {}
    for name, term in terms.items():
        weight = f"{name}.{WEIGHT}"
        bound = (annotated_types.Gt(0),)
        found[weight] = Parameter(weight, float, 1.0, "> 0", bound, f"factor of {name}'s loss, no unit")
        found |= {f"{name}.{key}": replace(item, name=f"{name}.{key}") for key, item in term.parameters.items()}
    return found


def _under(name: str, running: Running) -> dict[str, float]:
    """What a term remembers, of what the sum does."""
    return {key.removeprefix(f"{name}."): value for key, value in running.items() if key.startswith(f"{name}.")}


def _held_by_its_terms(before: Running, batch: Batch) -> Running:
    raise AssertionError("a sum asks its terms")


def _common(ranges: Collection[Range | None]) -> Range | None:
    """The learning rates that suit all terms; None where one says nothing, or they have none in common."""
    known = [each for each in ranges if each is not None]
    low, high = max((each.low for each in known), default=0.0), min((each.high for each in known), default=0.0)
    return Range(low, high) if len(known) == len(ranges) and low < high else None


def _agreed(declared: Collection[bool | None]) -> bool | None:
    """What all terms declare; None where they differ."""
    first = next(iter(declared))
    return first if len(declared) == 1 else None


def _falls_with(declared: Collection[FallsWith]) -> FallsWith:
    """The weakest of what the terms declare."""
    return next(each for each in ("nothing", "margin", "sides") if each in declared)


def _doc(terms: Mapping[str, OfflineAlgorithm], parameters: Mapping[str, Parameter]) -> str:
    """A docstring, as a method of a file has one."""
    equation = " + ".join(f"{each}.{WEIGHT} × {each}" for each in terms)
    arguments = "\n".join(f"    {each}: {item.description}" for each, item in parameters.items())
    sources = "\n".join(f"    {each}: {term.paper}" for each, term in terms.items())
    return (
        f"Weighted sum of the losses of {', '.join(terms)}.\n\n"
        f"Equation:\n    {equation}, where each stands for its own loss of a row\n\n"
        f"Args:\n    batch: all that one of the terms reads, shape [rows].\n{arguments}\n\n"
        "Returns:\n    Per-example loss and the weighted sum of the terms' rewards, each of shape [rows].\n\n"
        f"Source:\n    each term's own:\n{sources}\n\n"
        "Differs from the source:\n    as each of the terms does.\n"
    )
