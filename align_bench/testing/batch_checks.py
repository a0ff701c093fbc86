"""Checks of what a loss makes of the whole batch, and of sums of losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from align_bench.api import OfflineAlgorithm, SumOfLosses
from align_bench.api.batches import OF_THE_BATCH, fields_of
from align_bench.api.readings import as_record
from align_bench.api.sums import read_as
from align_bench.testing.subject import Subject, Verdict, failed, not_applicable, passed, shown


def whole_batch(subject: Subject) -> Verdict:
    """Whether statistics of the whole batch are the batch's, and what is remembered is plain and of no order."""
    algorithm = subject.algorithm
    if not isinstance(algorithm, OfflineAlgorithm) or not algorithm.reading.batch:
        return not_applicable("it reads no whole batch")
    record = subject.batch(subject.kind.moderate)
    before = subject.loss(record).values
    for place in range(len(record)):
        alone = subject.loss(_some(record, [place])).values
        if not torch.allclose(alone, before[place], rtol=1e-9, atol=1e-12):
            return failed(
                f"row {place} has a loss of {shown(alone)} alone in a micro-batch and {shown(before[place])} with the "
                "others, of one effective batch",
                "take statistics over `batch`, at `place`, and not over the rows at hand",
            )
    order = [*range(1, len(record)), 0]
    turned: Any = algorithm.of_one_batch(_some(record.batch, order), subject.parameters)
    for name, value in record.running.items():
        if not math.isclose(turned.running[name], value, rel_tol=1e-9, abs_tol=1e-12):
            return failed(
                f"{name} goes from {value:.5g} to {turned.running[name]:.5g} when the batch's rows change their order",
                "take means and the like over the batch",
            )
    again = algorithm.remembered(dict(record.running), record.batch, subject.parameters)
    if again.keys() != record.running.keys():
        return failed(f"it remembers {', '.join(record.running)}, then {', '.join(again)}", "return the same names")
    other = _some(record.batch, [0] * len(record))
    changed: Any = algorithm.of_one_batch(other, subject.parameters)
    if torch.equal(subject.loss(replace(record, batch=other, running=changed.running)).values, before):
        return failed(
            "the other rows of the batch leave the loss alone",
            "annotate a record without the whole batch, which saves a forward pass",
        )
    said = "; ".join(f"{name} {value:.5g}, then {again[name]:.5g}" for name, value in record.running.items())
    return passed(f"each row alone has the loss that it has in the batch{f'; remembers {said}' if said else ''}")


def _some(record: Any, places: Sequence[int]) -> Any:
    """Some rows of a record, of the same effective batch."""
    values = fields_of(record)
    for name, value in values.items():
        if isinstance(value, Tensor) and name not in OF_THE_BATCH:
            values[name] = value[list(places)]
    return replace(record, **values)


def terms(subject: Subject) -> Verdict:
    """Whether a sum has the value and the gradient of its terms, each alone on what it reads, times their weights."""
    algorithm = subject.algorithm
    if not isinstance(algorithm, SumOfLosses):
        return not_applicable("it is no sum of losses")
    record = subject.batch(subject.kind.moderate)
    loss, slopes = subject.gradients(record)
    values = torch.zeros_like(loss.values)
    expected = {name: torch.zeros_like(slope) for name, slope in slopes.items()}
    for name, weight in algorithm.weights(subject.parameters).items():
        term, own = algorithm.terms[name], algorithm.of_term(name, subject.parameters)
        inputs = subject.inputs(record)
        rows = read_as(term.reading.of_rows, replace(record, **inputs))
        still = {key: value.detach() if isinstance(value, Tensor) else value for key, value in fields_of(rows).items()}
        whole = term.of_one_batch(as_record(term.reading.of_rows, still), own)
        batch = as_record(term.reading, {**fields_of(whole), **fields_of(rows)})
        alone = term(batch, **own).values
        if len(alone) != len(values):  # chosen answers, then rejected ones
            alone = alone.reshape(2, -1).sum(0)
        found = torch.autograd.grad(alone.sum(), list(inputs.values()), allow_unused=True, materialize_grads=True)
        values = values + weight * alone.detach()
        expected = {key: expected[key] + weight * slope for key, slope in zip(inputs, found, strict=True)}
    for what, mine, theirs in (
        ("a loss", loss.values, values),
        *((f"∂loss/∂{name}", slopes[name], expected[name]) for name in slopes),
    ):
        if not torch.allclose(mine, theirs, rtol=1e-9, atol=1e-12):
            return failed(f"it has {what} of {shown(mine)}, its terms {shown(theirs)}", "look at `api.sums`")
    return passed(f"value and gradient are those of {', '.join(algorithm.terms)}, times their weights: {shown(values)}")
